/* What a call must come back with: its code, and a text that names what is wrong. */
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvfuse.h"

static int cases, failures;

/* `want` below 0: any error will do. */
static void expect(const char *what, int rc, int want, const char *text) {
    const char *said = kvf_last_error();
    cases++;
    if ((want < 0 ? rc != KVF_OK : rc == want) && rc != KVF_ERR_PANIC && (rc == KVF_OK || strstr(said, text))) return;
    failures++;
    printf("FAILED %s: code %d (%s), text: %s\n", what, rc, kvf_status_str(rc), said);
}
#define BAD(call, text) expect(#call, call, KVF_ERR_INVALID, text)
#define NOT(call) expect(#call, call, -1, "")
#define GOOD(call) expect(#call, call, KVF_OK, "")
