# SPDX-License-Identifier: Apache-2.0
# Which GPUs to compile for. Sets CMAKE_CUDA_ARCHITECTURES (unless the caller did) and
# PADMARLIN_ARCHITECTURES, the same as nvcc names them: sm_80 (machine code), compute_80 (PTX).

# sm_80 runs on 8.x. sm_90a, which alone may use wgmma, runs on exactly 9.0. The driver compiles
# the PTX for whatever is newer.
set(PADMARLIN_DEFAULT_ARCHITECTURES 80-real 90a-real 80-virtual)

# torch's list, say "8.0;9.0a+PTX" or "Ampere Hopper", in CMake's terms.
function(padmarlin_parse_torch_architectures list result)
  string(REGEX REPLACE "[ ,;]+" ";" entries "${list}")
  # As torch/utils/cpp_extension.py expands them.
  list(TRANSFORM entries REPLACE "^Ampere(.*)$" "8.0\\1")
  list(TRANSFORM entries REPLACE "^Ada(.*)$" "8.9\\1")
  list(TRANSFORM entries REPLACE "^Hopper(.*)$" "9.0\\1")
  set(architectures "")
  foreach(entry IN LISTS entries)
    if(NOT entry MATCHES "^([0-9]+)\\.([0-9])([af]?)(\\+PTX)?$")
      message(FATAL_ERROR "padmarlin: TORCH_CUDA_ARCH_LIST has '${entry}', expected entries like "
                          "8.0, 9.0a or 8.6+PTX")
    endif()
    set(number "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")
    set(suffix "${CMAKE_MATCH_3}")
    set(ptx "${CMAKE_MATCH_4}")
    if(number LESS 80)
      message(STATUS "padmarlin: skipping ${entry}: the kernels need compute capability 8.0")
      continue()
    endif()
    list(APPEND architectures "${number}${suffix}-real")
    if(ptx)
      list(APPEND architectures "${number}${suffix}-virtual")
    endif()
  endforeach()
  if(NOT architectures)
    message(FATAL_ERROR "padmarlin: TORCH_CUDA_ARCH_LIST is '${list}', expected at least one "
                        "entry >= 8.0; unset it for the default")
  endif()
  list(REMOVE_DUPLICATES architectures)
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES OR DEFINED CACHE{PADMARLIN_CHOSE_ARCHITECTURES})
  if("$ENV{TORCH_CUDA_ARCH_LIST}" STREQUAL "")
    set(chosen ${PADMARLIN_DEFAULT_ARCHITECTURES})
  else()
    padmarlin_parse_torch_architectures("$ENV{TORCH_CUDA_ARCH_LIST}" chosen)
  endif()
  # Remembered, because project() caches what it finds here: a later configure of the same
  # directory would take this choice for the caller's, and a changed environment would not count.
  set(PADMARLIN_CHOSE_ARCHITECTURES ON CACHE INTERNAL "")
  set(CMAKE_CUDA_ARCHITECTURES ${chosen})
endif()

set(PADMARLIN_ARCHITECTURES "")
foreach(architecture IN LISTS CMAKE_CUDA_ARCHITECTURES)
  if(architecture MATCHES "^([0-9]+[af]?)(-real)?$")
    list(APPEND PADMARLIN_ARCHITECTURES "sm_${CMAKE_MATCH_1}")
  endif()
  if(architecture MATCHES "^([0-9]+[af]?)(-virtual)?$")
    list(APPEND PADMARLIN_ARCHITECTURES "compute_${CMAKE_MATCH_1}")
  endif()
endforeach()
