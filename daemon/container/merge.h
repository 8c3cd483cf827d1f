/* What an image says and what the user says, merged into one process as Docker merges them. Pure
 * functions; nothing suspends. */
#pragma once

#include "proto/base/error.h"

/* Entrypoint and command to one argument list, the caller's. An entrypoint of the user (also an
 * empty one, or the one string "") drops the image's command with its entrypoint. Nothing to run:
 * INVALID_ARGUMENT, reason NO_COMMAND. Any argument may be NULL. */
char **merge_command(char *const *image_entrypoint, char *const *image_cmd,
                     char *const *user_entrypoint, char *const *user_command, struct error *err);

/* Environment: PATH and HOSTNAME, then the user's, then what the image has besides, then HOME.
 * Later does not override earlier of the same list but replaces it in place; a name without "="
 * removes the variable. The caller owns the result. Over ENVIRONMENT_MAX variables:
 * RESOURCE_EXHAUSTED. */
#define ENVIRONMENT_MAX 4096
char **merge_environment(char *const *image_env, char *const *user_env, const char *hostname,
                         const char *home, struct error *err);

/* An absolute, clean path ("/a/b", no "." or ".."), the caller's; "" or NULL gives "/". A relative
 * one: INVALID_ARGUMENT. */
char *merge_working_dir(const char *image_dir, const char *user_dir, struct error *err);

/* 1 to 64 of letters, digits, "-", "." and "_", as sethostname(2) and /etc/hosts bear it. */
bool check_hostname(const char *hostname, struct error *err);
