// SPDX-License-Identifier: Apache-2.0
// XLA ends the process when it gets no plan, but reports an execution that fails.
STUB int hipfftCreate(void** plan) {
  *plan = plan;
  return 0;
}
STUB int hipfftDestroy(void*) { return 0; }
STUB int hipfftSetAutoAllocation(void*, int) { return 0; }
STUB int hipfftSetStream(void*, void*) { return 0; }
STUB int hipfftSetWorkArea(void*, void*) { return 0; }

static int no_plan_needs_work_area(size_t* bytes) {
  *bytes = 0;
  return 0;
}
STUB int hipfftMakePlan1d(void*, int, int, int, size_t* bytes) {
  return no_plan_needs_work_area(bytes);
}
STUB int hipfftMakePlan2d(void*, int, int, int, size_t* bytes) {
  return no_plan_needs_work_area(bytes);
}
STUB int hipfftMakePlan3d(void*, int, int, int, int, size_t* bytes) {
  return no_plan_needs_work_area(bytes);
}
STUB int hipfftMakePlanMany(void*, int, int*, int*, int, int, int*, int, int, int, int,
                            size_t* bytes) {
  return no_plan_needs_work_area(bytes);
}
