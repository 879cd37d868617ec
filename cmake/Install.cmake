# SPDX-License-Identifier: MIT
#
# Headers, both libraries, asyncioConfig.cmake and asyncio.pc. No file names the prefix, so that an
# installed tree may be moved.
include(CMakePackageConfigHelpers)

install(DIRECTORY include/asyncio TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp")
install(FILES tools/gdb/asyncio.py DESTINATION ${CMAKE_INSTALL_DATADIR}/asyncio/gdb)
install(TARGETS asyncio_shared asyncio_static EXPORT asyncio)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/asyncio)
install(EXPORT asyncio NAMESPACE asyncio:: FILE asyncioTargets.cmake DESTINATION ${config_dir})
configure_package_config_file(cmake/asyncioConfig.cmake.in asyncioConfig.cmake
    INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(asyncioConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/asyncioConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/asyncioConfigVersion.cmake
        DESTINATION ${config_dir})

# pkg-config replaces ${pcfiledir} by the folder in which it found the file.
file(RELATIVE_PATH pc_prefix
     ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${pc_prefix}")
cmake_path(IS_ABSOLUTE CMAKE_INSTALL_LIBDIR absolute_libdir)
cmake_path(IS_ABSOLUTE CMAKE_INSTALL_INCLUDEDIR absolute_includedir)
if(absolute_libdir OR absolute_includedir)
    set(pc_prefix ${CMAKE_INSTALL_PREFIX})
endif()
set(pc_libdir "\${prefix}")
cmake_path(APPEND pc_libdir ${CMAKE_INSTALL_LIBDIR})
set(pc_includedir "\${prefix}")
cmake_path(APPEND pc_includedir ${CMAKE_INSTALL_INCLUDEDIR})
set(pc_cflags "")
if(ASYNCIO_ASSERTIONS)
    set(pc_cflags " -DASYNCIO_ASSERTIONS=1")
endif()
configure_file(cmake/asyncio.pc.in asyncio.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/asyncio.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
