# Read by llama-cpp-python's CMakeLists.txt, which turns this on whatever it is told: a library that
# llama.cpp's own programs share, a third of all that is compiled, and of no use to Python.
set(LLAMA_BUILD_COMMON OFF)
