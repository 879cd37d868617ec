# SPDX-License-Identifier: MIT
#
# Headers, libraries (both kinds), asyncioConfig.cmake, asyncio.pc and asyncio-ssl.pc. No file names the prefix, so that an
# installed tree may be moved.
include(CMakePackageConfigHelpers)

set(left_out "")
if(NOT ASYNCIO_SSL)
    set(left_out PATTERN ssl.hpp EXCLUDE)
endif()
install(DIRECTORY include/asyncio TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp" ${left_out})
install(FILES tools/gdb/asyncio.py DESTINATION ${CMAKE_INSTALL_DATADIR}/asyncio/gdb)
install(TARGETS asyncio_shared asyncio_static EXPORT asyncio)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/asyncio)
install(EXPORT asyncio NAMESPACE asyncio:: FILE asyncioTargets.cmake DESTINATION ${config_dir})
if(ASYNCIO_SSL) # apart, since who has no OpenSSL can use the rest
    install(TARGETS asyncio_ssl_shared asyncio_ssl_static EXPORT asyncio_ssl)
    install(EXPORT asyncio_ssl NAMESPACE asyncio:: FILE asyncioSslTargets.cmake
        DESTINATION ${config_dir})
endif()
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
if(ASYNCIO_SSL)
    configure_file(cmake/asyncio-ssl.pc.in asyncio-ssl.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/asyncio-ssl.pc
            DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
