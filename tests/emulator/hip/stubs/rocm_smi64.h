// SPDX-License-Identifier: Apache-2.0
// XLA asks for the devices' places at its start: there are none.
STUB int rsmi_init(uint64_t) { return 0; }
STUB int rsmi_num_monitor_devices(uint32_t* count) {
  *count = 0;
  return 0;
}
STUB int rsmi_status_string(int, const char** text) {
  *text = "not emulated";
  return 0;
}
