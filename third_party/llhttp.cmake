# Target "llhttp": the HTTP/1 parser. Debian 13 and Ubuntu 24.04 have it as a library; Debian 12
# has its generated C sources in node-llhttp, which are compiled here.
pkg_check_modules(LLHTTP IMPORTED_TARGET libllhttp>=8)
if(LLHTTP_FOUND)
    add_library(llhttp INTERFACE)
    target_link_libraries(llhttp INTERFACE PkgConfig::LLHTTP)
    return()
endif()

find_path(LLHTTP_INCLUDE_DIR llhttp.h
    PATHS /usr/share/include /usr/include /usr/share/nodejs/llhttp/include
    PATH_SUFFIXES llhttp)
find_path(LLHTTP_SOURCE_DIR llhttp.c
    PATHS /usr/share/llhttp /usr/share/nodejs/llhttp
    PATH_SUFFIXES src)
if(NOT LLHTTP_INCLUDE_DIR OR NOT LLHTTP_SOURCE_DIR)
    message(FATAL_ERROR "llhttp not found: neither libllhttp.pc nor the C sources of node-llhttp; "
        "run third_party/deps.sh build, or set LLHTTP_INCLUDE_DIR and LLHTTP_SOURCE_DIR")
endif()
add_library(llhttp STATIC
    ${LLHTTP_SOURCE_DIR}/api.c ${LLHTTP_SOURCE_DIR}/http.c ${LLHTTP_SOURCE_DIR}/llhttp.c)
target_include_directories(llhttp SYSTEM PUBLIC ${LLHTTP_INCLUDE_DIR})
target_compile_options(llhttp PRIVATE -w)
