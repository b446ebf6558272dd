// SPDX-License-Identifier: Apache-2.0
#include "gpu/library.h"

#include <dlfcn.h>
#include <link.h>

namespace jax_mla {
namespace {

struct Search {
  const std::string& prefix;
  std::string path;
};

// For dl_iterate_phdr: ends the search where a file name begins with the prefix.
int Matches(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  const std::string path = info->dlpi_name;
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  if (path.compare(name, search->prefix.size(), search->prefix) != 0) return 0;
  search->path = path;
  return 1;
}

}  // namespace

Library::Library(const std::string& prefix, const std::vector<const char*>& names) {
  Search search{prefix, ""};
  if (dl_iterate_phdr(Matches, &search) != 0) {
    handle_ = dlopen(search.path.c_str(), RTLD_NOW | RTLD_NOLOAD);
    path_ = search.path;
  }
  for (size_t i = 0; handle_ == nullptr && i < names.size(); ++i) {
    handle_ = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    path_ = names[i];
    if (handle_ == nullptr) reason_ += std::string(i == 0 ? "" : "; ") + dlerror();
  }
}

void* Library::Symbol(const char* name) const { return handle_ ? dlsym(handle_, name) : nullptr; }

}  // namespace jax_mla
