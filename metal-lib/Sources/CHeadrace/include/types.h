/* What Swift sees of the ABI: its types and constants. The functions are Swift's own. */
#ifndef HEADRACE_TYPES_H
#define HEADRACE_TYPES_H

#define HR_TYPES_ONLY
#include "headrace.h"

#endif
