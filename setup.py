"""Build the kernels in C++ if there is a compiler. All else is in pyproject.toml.

The module `_sksoftmax_kernels` is installed beside the package, not inside it. So Python also finds it in a clone of
the repository, whose folder ``sksoftmax`` comes before the installed package. Without a compiler, or with
``SKSOFTMAX_PURE=1``, the package is built without kernels.
"""

import os
import platform
import shutil
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FOLDER = Path("sksoftmax", "_engines", "cpp")

#: The version that `sksoftmax._engines.compiled` asks for.
VERSION = 14

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")

#: Flags of each variant of the kernels, for GCC or clang and for MSVC. The first variant runs on every processor of the
#: platform; `module.cpp` chooses the last one that the processor can run.
VARIANTS = {"baseline": ([], [])}
if IS_X86:
    VARIANTS["avx2"] = (["-mavx2", "-mfma"], ["/arch:AVX2"])
    VARIANTS["avx512"] = (["-march=x86-64-v4", "-mtune=generic"], ["/arch:AVX512"])


class BuildFromNothing(build_py):
    """Remove what an earlier build left: modules that do not exist any more would get into the wheel."""

    def run(self):
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildKernels(build_ext):
    """Compile the module, nanobind, and each variant of the kernels."""

    def build_extension(self, ext):
        import nanobind

        nanobind_folder = Path(nanobind.include_dir()).parent
        is_msvc = self.compiler.compiler_type == "msvc"
        common = ["/std:c++17", "/EHsc", "/O2"]
        if not is_msvc:
            common = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-pthread"]
        macros = [("NDEBUG", None), ("NB_COMPACT_ASSERTIONS", None), ("SKSOFTMAX_KERNELS_VERSION", str(VERSION))]
        if IS_X86:
            macros.append(("SKSOFTMAX_X86", None))
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            macros.append(("NB_FREE_THREADED", None))

        def compile_one(name, source, flags, variant=None):
            (compiled,) = self.compiler.compile(
                [str(source)],
                output_dir=str(Path(self.build_temp, name)),
                macros=[*macros, ("SKSOFTMAX_VARIANT", variant)] if variant else macros,
                include_dirs=[str(nanobind_folder / "include"), str(nanobind_folder / "ext/robin_map/include")],
                extra_postargs=[*common, *flags],
            )
            return compiled

        # vectors are passed between inlined functions alone, hence no warning that their ABI depends on the variant
        kernel_flags = [] if is_msvc else ["-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
        jobs = [
            (name, FOLDER / "variant.cpp", [*kernel_flags, *flags[is_msvc]], name) for name, flags in VARIANTS.items()
        ]
        jobs.append(("module", FOLDER / "module.cpp", []))
        jobs.append(("nanobind", nanobind_folder / "src/nb_combined.cpp", [] if is_msvc else ["-fno-strict-aliasing"]))
        with ThreadPoolExecutor(1 if is_msvc else os.cpu_count()) as pool:  # MSVC's class sets itself up at first use
            # in the order of the jobs: should two variants define the same function, the linker takes the baseline's
            ext.extra_objects = list(pool.map(lambda job: compile_one(*job), jobs))
        ext.extra_link_args = [] if is_msvc else ["-pthread"]
        super().build_extension(ext)


kernels = Extension("_sksoftmax_kernels", [], language="c++", optional=True)
setup(
    ext_modules=[] if os.environ.get("SKSOFTMAX_PURE") == "1" else [kernels],
    cmdclass={"build_py": BuildFromNothing, "build_ext": BuildKernels},
)
