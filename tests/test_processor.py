"""Which processors are told which kernels of MKL to take, and that processes are told before torch multiplies."""

import os
import subprocess
import sys

import pytest

from dropasr.processor import MKL_KERNELS, fast_kernels, use_fast_kernels

AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 fma avx avx2\nbugs\t\t:\n"


@pytest.mark.parametrize(
    ("cpuinfo", "wanted"),
    [
        (AMD, {MKL_KERNELS: "5"}),
        (AMD.replace(" avx2", ""), {}),
        (AMD.replace(" fma", ""), {}),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), {}),
        ("", {}),
    ],
)
def test_processors_of_another_maker_with_avx2_are_told(cpuinfo, wanted):
    assert fast_kernels(cpuinfo) == wanted


def test_only_the_first_core_is_read_and_the_users_word_stands(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(f"{AMD.replace('AuthenticAMD', 'GenuineIntel')}\n{AMD}")
    monkeypatch.delenv(MKL_KERNELS, raising=False)
    use_fast_kernels(str(path))
    assert MKL_KERNELS not in os.environ
    use_fast_kernels(str(tmp_path / "none"))
    assert MKL_KERNELS not in os.environ
    path.write_text(AMD)  # the file may end without an empty line
    use_fast_kernels(str(path))
    assert os.environ[MKL_KERNELS] == "5"
    monkeypatch.setenv(MKL_KERNELS, "4")
    use_fast_kernels(str(path))
    assert os.environ[MKL_KERNELS] == "4"


def test_the_package_says_it_without_importing_torch():
    """MKL reads the variable at its first product: whoever imports a module of the package has set it by then."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        wanted = fast_kernels(file.read().split("\n\n")[0]).get(MKL_KERNELS)
    code = f"import sys, dropasr, os; print(os.environ.get({MKL_KERNELS!r}), 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != MKL_KERNELS}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(wanted), "False"]
