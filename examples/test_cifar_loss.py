"""`cifar_loss.py` beside what evoloss computed when it was exported: run `python test_cifar_loss.py`, or pytest."""

import shutil
import unittest
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from cifar_loss import CifarLoss as Module
from cifar_loss import cifar_loss as function

SIZES: dict[str, int] = {}
# fmt: off
CASES: list[dict[str, Any]] = [
 {'name': 'plain',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [0, 1, 2, 3, 0, 1]},
  'options': {},
  'value': 41.297912746163,
  'gradients': {'logits': [[-0.084018382352639, -0.11619996157032, -0.080932620268741, 0.2811509641917],
                           [0.047980825235685, -0.21912733107166, 0.11944936738754, 0.051697138448434],
                           [-0.063342347060752, -0.024581424432889, -0.10347901373336, 0.19140278522701],
                           [-0.046998169180879, -0.054489449551541, 0.35793466080118, -0.25644704206876],
                           [-0.15798123928534, 0.21110883859964, -0.021862913755867, -0.031264685558427],
                           [-0.057294297810092, -0.27223749088384, -0.028437295113395, 0.35796908380732]]}},
 {'name': 'ignored',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [-100, 1, -100, 3, 0, 1]},
  'options': {},
  'value': 40.553056927964,
  'gradients': {'logits': [[0.0, 0.0, 0.0, 0.0],
                           [0.071971237853528, -0.32869099660749, 0.17917405108131, 0.077545707672652],
                           [0.0, 0.0, 0.0, 0.0],
                           [-0.070497253771318, -0.081734174327311, 0.53690199120176, -0.38467056310314],
                           [-0.23697185892801, 0.31666325789945, -0.0327943706338, -0.046897028337641],
                           [-0.085941446715137, -0.40835623632576, -0.042655942670092, 0.53695362571098]]}},
 {'name': 'soft targets',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [[0.163, 0.416, 0.321, 0.1], [0.274, 0.235, 0.241, 0.251], [0.37, 0.084, 0.305, 0.241],
                        [0.188, 0.181, 0.247, 0.384], [0.288, 0.131, 0.227, 0.353],
                        [0.488, 0.195, 0.081, 0.236]]},
  'options': {},
  'value': 40.722498100228,
  'gradients': {'logits': [[-0.034522430471933, -0.19797722555305, -0.12332078180812, 0.3558204378331],
                           [-0.014303785199742, -0.051189618975438, 0.069976293156809, -0.0044828889816286],
                           [-0.13441246233038, -0.017621082281412, -0.047263126370237, 0.19929667098203],
                           [-0.076539040461174, -0.10205113617127, 0.32052763209864, -0.14193745546619],
                           [-0.022366161127904, 0.18093327085313, -0.078437841678456, -0.080129268046773],
                           [-0.15122756388747, -0.11100877082147, -0.036795891979714, 0.29903222668866]]}},
 {'name': 'weighted',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [0, 1, 2, 3, 0, 1],
             'weight': [1.258, 1.144, 1.146, 0.659]},
  'options': {},
  'value': 41.298841191041,
  'gradients': {'logits': [[-0.095955628687807, -0.13270953395866, -0.092431444664617, 0.32109660731108],
                           [0.049832105374148, -0.22758208510756, 0.1240581718487, 0.053691807884711],
                           [-0.065901343378686, -0.025574500590186, -0.10765950952196, 0.19913535349083],
                           [-0.02811783340009, -0.032599679758933, 0.21414338762413, -0.1534258744651],
                           [-0.18042705312842, 0.2411029677334, -0.024969174312193, -0.035706740292784],
                           [-0.059504926640712, -0.28274143401826, -0.029534512582591, 0.37178087324156]]}},
 {'name': 'soft, weighted',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [[0.163, 0.416, 0.321, 0.1], [0.274, 0.235, 0.241, 0.251], [0.37, 0.084, 0.305, 0.241],
                        [0.188, 0.181, 0.247, 0.384], [0.288, 0.131, 0.227, 0.353],
                        [0.488, 0.195, 0.081, 0.236]],
             'weight': [1.258, 1.144, 1.146, 0.659]},
  'options': {},
  'value': 43.693076797747,
  'gradients': {'logits': [[-0.058970794819465, -0.299233643506, -0.17819646244008, 0.53640090076555],
                           [-0.1394851907682, -0.095829167173422, 0.0070786309676062, 0.22823572697401],
                           [-0.26840033681713, -0.11782447803082, -0.066807836854711, 0.45303265170266],
                           [-0.12818983183336, -0.14684594242594, 0.26158387486925, 0.013451899390049],
                           [-0.11362449953989, 0.19060249240152, -0.097371344870364, 0.020393352008735],
                           [-0.25257757647417, -0.21628202286955, -0.0566048543634, 0.52546445370712]]}},
 {'name': 'a number a sample',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [0, 1, 2, 3, 0, 1]},
  'options': {'reduction': 'none'},
  'value': [43.391393072063, 40.08966017312, 42.18385569306, 41.421146974251, 39.767000902104,
            40.934419662382],
  'gradients': {'logits': [[-0.50411029411583, -0.69719976942192, -0.48559572161245, 1.6869057851502],
                           [0.28788495141411, -1.31476398643, 0.71669620432524, 0.31018283069061],
                           [-0.38005408236451, -0.14748854659733, -0.62087408240019, 1.148416711362],
                           [-0.28198901508527, -0.32693669730924, 2.1476079648071, -1.5386822524125],
                           [-0.94788743571205, 1.2666530315978, -0.1311774825352, -0.18758811335056],
                           [-0.34376578686055, -1.633424945303, -0.17062377068037, 2.1478145028439]]}},
 {'name': 'summed',
  'inputs': {'logits': [[-2.31, -0.373, -1.061, 1.0], [-0.884, -1.276, -0.623, -0.866],
                        [0.239, 0.734, -1.322, 1.315], [-1.487, -0.714, 0.52, -0.953],
                        [0.675, 1.047, 0.154, -0.75], [-0.723, 0.086, -1.746, 1.041]],
             'target': [0, 1, 2, 3, 0, 1]},
  'options': {'reduction': 'sum'},
  'value': 247.78747647698,
  'gradients': {'logits': [[-0.50411029411583, -0.69719976942192, -0.48559572161245, 1.6869057851502],
                           [0.28788495141411, -1.31476398643, 0.71669620432524, 0.31018283069061],
                           [-0.38005408236451, -0.14748854659733, -0.62087408240019, 1.148416711362],
                           [-0.28198901508527, -0.32693669730924, 2.1476079648071, -1.5386822524125],
                           [-0.94788743571205, 1.2666530315978, -0.1311774825352, -0.18758811335056],
                           [-0.34376578686055, -1.633424945303, -0.17062377068037, 2.1478145028439]]}},
 {'name': 'certain',
  'inputs': {'logits': [[-92.4, -14.92, -42.44, 40.0], [-35.36, -51.04, -24.92, -34.64],
                        [9.56, 29.36, -52.88, 52.6], [-59.48, -28.56, 20.8, -38.12],
                        [27.0, 41.88, 6.16, -30.0], [-28.92, 3.44, -69.84, 41.64]],
             'target': [0, 1, 2, 3, 0, 1]},
  'options': {},
  'value': 46.484976939511,
  'gradients': {'logits': [[0.0, 0.0, 0.0, 0.0],
                           [-5.6569434990368e-05, 3.8496658013687e-12, 0.00017278144422757,
                            -0.00011621201308692],
                           [1.7260964171805e-19, 6.856394419798e-11, 1.3173998239294e-46,
                            -6.8563932303939e-11],
                           [0.0, 0.0, 0.0, 0.0],
                           [-1.4813906107138e-06, 1.481390610501e-06, 2.6067623705598e-16,
                            5.152440408518e-32],
                           [0.0, 0.0, 0.0, 0.0]]}},
]
# fmt: on


def tensors(case: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The inputs of a case, of this floating type, those that have a gradient as leaves."""
    inputs = {}
    for name, values in case["inputs"].items():
        tensor = torch.tensor(values, dtype=torch.float64)
        whole = name == "triplets" or (name == "target" and tensor.ndim == 1)
        inputs[name] = tensor.long() if whole else tensor.to(dtype).requires_grad_(name in case["gradients"])
    return inputs


def module(case: dict[str, Any], inputs: dict[str, Any]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a case, and what it is called with."""
    options = case["options"] | {name: inputs[name].detach() for name in ("weight",) if name in inputs}
    made = Module(**SIZES, **options)
    if "centers" in inputs:
        made.centers = nn.Parameter(inputs["centers"].detach())
    return made, tuple(tensor for name, tensor in inputs.items() if name not in ("weight", "centers"))


def sizes() -> dict[str, int]:
    """What the function is told of sizes: the number of classes, where no tensor has it."""
    return {name: size for name, size in SIZES.items() if name == "num_classes" and "embedding_dim" not in SIZES}


class Parity(unittest.TestCase):
    """The function and the module beside the values and gradients that evoloss computed in double precision."""

    def check(self, case: dict[str, Any], dtype: torch.dtype, rtol: float) -> None:
        """Compare one case; `rtol` is relative to the largest magnitude."""
        inputs = tensors(case, dtype)
        value = function(**inputs, **sizes(), **case["options"])
        self.near(value, case["value"], rtol)
        leaves = [inputs[name] for name in case["gradients"]]
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        for expected, gradient, leaf in zip(case["gradients"].values(), gradients, leaves, strict=True):
            self.near(torch.zeros_like(leaf) if gradient is None else gradient, expected, rtol)

    def near(self, found: Tensor, expected: Any, rtol: float) -> None:
        """Fail where two tensors differ by more than `rtol` times the largest magnitude that is expected."""
        wanted = torch.as_tensor(expected, dtype=torch.float64).detach()
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(found.detach().double(), wanted, rtol=0, atol=rtol * max(largest, 1e-6))

    def test_double_precision(self) -> None:
        """Values and gradients, to ten digits."""
        for case in CASES:
            with self.subTest(case["name"]):
                self.check(case, torch.float64, 1e-10)

    def test_single_precision(self) -> None:
        """Values and gradients of logits of ordinary size, to three digits."""
        for case in CASES:
            if case["name"] != "certain":
                with self.subTest(case["name"]):
                    self.check(case, torch.float32, 1e-3)

    def test_module(self) -> None:
        """The module says what the function says."""
        for case in CASES:
            with self.subTest(case["name"]):
                made, arguments = module(case, tensors(case, torch.float64))
                self.near(made(*arguments), case["value"], 1e-10)

    def test_trailing_dimensions(self) -> None:
        """[2, C, 3] is as good as [6, C]."""
        case = CASES[0]
        inputs = tensors(case, torch.float64)
        for name, tensor in inputs.items():
            if name == "target":
                inputs[name] = tensor.reshape(2, 3)
            elif name in ("logits", "embeddings"):
                inputs[name] = tensor.reshape(2, 3, -1).movedim(2, 1)
        self.near(function(**inputs, **sizes(), **case["options"]), case["value"], 1e-10)

    def test_bfloat16_autocast(self) -> None:
        """Under autocast the loss is computed in single precision, from inputs in half of it."""
        inputs = {name: tensor.detach() for name, tensor in tensors(CASES[0], torch.float32).items()}
        half = {
            name: tensor.bfloat16().requires_grad_() if name in ("logits", "embeddings") else tensor
            for name, tensor in inputs.items()
        }
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = function(**half, **sizes())
        assert value.dtype == torch.float32
        single = {name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor for name, tensor in half.items()}
        self.near(value, function(**single, **sizes()), 1e-6)
        value.backward()
        assert all(tensor.grad.isfinite().all() for tensor in half.values() if tensor.grad is not None)

    def test_torch_export(self) -> None:
        """`torch.export` sees one graph."""
        made, arguments = module(CASES[0], tensors(CASES[0], torch.float64))
        program = torch.export.export(made, tuple(tensor.detach() for tensor in arguments))
        self.near(program.module()(*(tensor.detach() for tensor in arguments)), CASES[0]["value"], 1e-10)

    def test_torch_jit_script(self) -> None:
        """`torch.jit.script`, which newer versions of torch call deprecated."""
        made, arguments = module(CASES[0], tensors(CASES[0], torch.float64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scripted = torch.jit.script(made)
        self.near(scripted(*arguments), CASES[0]["value"], 1e-10)

    def test_torch_compile(self) -> None:
        """`torch.compile`, as one graph, forward and backward."""
        if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            self.skipTest("torch.compile needs a C++ compiler, and there is none")
        inputs = tensors(CASES[0], torch.float32)
        value = torch.compile(function, fullgraph=True)(**inputs, **sizes(), **CASES[0]["options"])
        self.near(value, CASES[0]["value"], 1e-3)
        name, expected = next(iter(CASES[0]["gradients"].items()))
        self.near(torch.autograd.grad(value, inputs[name])[0], expected, 1e-3)


if __name__ == "__main__":
    unittest.main()
