/* Intrusive doubly linked list: a `struct list` in the head and in each member. */
#pragma once

#include "proto/base/util.h"

struct list {
    struct list *next, *prev;
};

#define LIST_ITEM(node, type, member) CONTAINER_OF(node, type, member)

/* Walks nodes; the body may remove the current node. */
#define LIST_FOR_EACH(node, head)                                                     \
    for (struct list *node = (head)->next, *node##_next = node->next; node != (head); \
         node = node##_next, node##_next = node->next)

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Removes a node and leaves it self-linked, so that a second removal does nothing. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Appends all members of `from` to `to` and leaves `from` empty. */
static inline void list_move_all(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}

/* First member or NULL; it stays in the list. */
static inline struct list *list_first(struct list *head)
{
    return list_empty(head) ? NULL : head->next;
}
