/*
 * Included before everything else when the code is analysed: what fails never
 * returns 0, which no analyser can see, so that each would take the results
 * behind an early return for unset.
 */
#include "imgtk/error.h"

#define imgtk_fail(err, status, ...) ((imgtk_fail)(err, status, __VA_ARGS__), (status))
#define imgtk_fail_errno(err, ...) ((imgtk_fail_errno)(err, __VA_ARGS__), IMGTK_EIO)
#define imgtk_fail_prefix(err, ...) ((imgtk_fail_prefix)(err, __VA_ARGS__), IMGTK_EIO)
