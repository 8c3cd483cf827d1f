/* What `davit system verify` shows. Pure functions: messages and what is on the screen already go
 * in, bytes to write come out. The live view is one line, below the problems that were found. */
#pragma once

#include "client/ui/terminal.h"
#include "proto/base/json.h"
#include "proto/davit/v1/jobs.pb-c.h"

typedef Davit__V1__VerifyProgress verify_progress;
typedef Davit__V1__VerifyProblem verify_problem;
typedef Davit__V1__VerifyResult verify_result;

/* Draws the line over the last one; the cursor is hidden and stays on it. */
void verification_draw(const verify_progress *now, struct terminal_size size, struct strbuf *out);

/* Erases the line and shows the cursor again. */
void verification_leave(struct strbuf *out);

/* One line: the images and the layer, what is wrong, what to do. */
void verification_add_problem(const verify_problem *problem, struct strbuf *out);

/* "3 images, 12 layers verified (1.2GB), 0 problems" */
void verification_add_result(const verify_result *result, struct strbuf *out);

json_t *verification_problem_json(const verify_problem *problem);

/* One line of JSON; takes the array of the problems over. */
void verification_add_json(const verify_result *result, json_t *problems, struct strbuf *out);
