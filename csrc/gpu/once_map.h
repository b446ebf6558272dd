// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>

namespace jax_mla {

// Values made once for each key, by the thread that asks first. Others wait for that key alone;
// once a value is there, asking takes a shared lock and allocates nothing. Values stay where they
// are until the process ends. A key may be asked for by what compares with it and makes one, as a
// std::string by a std::string_view.
template <typename Key, typename Value>
class OnceMap {
 public:
  template <typename Asked, typename Make>
  const Value& Get(const Asked& key, Make make) {
    Entry& entry = Find(key);
    std::call_once(entry.made, [&] { entry.value = make(); });
    return entry.value;
  }

 private:
  struct Entry {
    std::once_flag made;
    Value value;
  };

  template <typename Asked>
  Entry& Find(const Asked& key) {
    {
      std::shared_lock lock(mutex_);
      const auto found = entries_.find(key);
      if (found != entries_.end()) return *found->second;
    }
    std::unique_lock lock(mutex_);
    std::unique_ptr<Entry>& entry = entries_[Key(key)];
    if (entry == nullptr) entry = std::make_unique<Entry>();
    return *entry;
  }

  std::shared_mutex mutex_;
  std::map<Key, std::unique_ptr<Entry>, std::less<>> entries_;
};

}  // namespace jax_mla
