// The Python module maskrcnn_benchmark._C. It has no members: importing it runs the static initialisers of the op
// folders, which register their kernels with the dispatcher of torch under the library `mrcnn`.
#include <Python.h>

extern "C" PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT,
      "_C",
      "Compiled kernels of maskrcnn_benchmark.ops.",
      -1,
      nullptr,
      nullptr,
      nullptr,
      nullptr,
      nullptr,
  };
  return PyModule_Create(&definition);
}
