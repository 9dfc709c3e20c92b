"""What each method does besides what all of them do."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_relaxed import SPACE, TABLE, recipe, small_cells, stripes

from search_spaces.catalog import SPACES
from search_spaces.cell import nas_bench_201
from search_spaces.elastic import BatchNorm2d, OneOf
from search_spaces.network import extract, find_space, run
from search_spaces.space import SearchSpace
from search_spaces.value import Choice, Condition
from supernet.learner import Learner
from supernet.relaxed.darts import Darts
from supernet.relaxed.dropnas import DropNAS
from supernet.relaxed.fbnet import FBNet
from supernet.relaxed.found import found_logits
from supernet.relaxed.proxyless import ProxylessNAS
from supernet.relaxed.small_temperature import SmallTemperature, adapted
from supernet.relaxed.superkernel import SuperKernel

DATA = stripes()
EDGES = [choice.name for choice in SPACE.choices if choice.name.startswith("edge")]


def learner(name, net=None, total_steps=10, **settings):
    net = small_cells() if net is None else net
    return Learner(net, find_space(net), DATA, recipe(name, **{"warmup": 0.0, **settings}), total_steps)


def lesson(progress=0.5, seed=0):
    return SimpleNamespace(rng=np.random.default_rng(seed), progress=progress)


def spread_(search):
    """Logits that differ."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for values in search.logits.values():
            values.copy_(torch.from_numpy(rng.normal(size=len(values))))
    return search


def probabilities(search):
    return {name: p.detach().double() for name, p in search.probabilities().items()}


@pytest.mark.parametrize("name", ["darts", "superkernel"])
def test_logits_follow_the_mean_gradient_of_all_processes(name, monkeypatch):
    """Gradients that cancel out over the processes move none of them."""
    monkeypatch.setattr("supernet.relaxed.search.average_", lambda tensors: [t.zero_() for t in tensors])
    still = learner(name, decay=0.0)
    before = {n: values.detach().clone() for n, values in still.teaching.logits.items()}
    still.step(0)
    assert all(torch.equal(values, before[n]) for n, values in still.teaching.logits.items())
    monkeypatch.undo()
    moved = learner(name, decay=0.0)
    moved.step(0)
    assert any(not torch.equal(values, before[n]) for n, values in moved.teaching.logits.items())


def test_darts_mixes_all_options_by_their_softmax():
    search = spread_(learner("darts").teaching)
    gates = search.logit_gates(lesson())
    assert all(gates[name].on is None for name in gates)
    torch.testing.assert_close(gates["edge0"].weights, torch.softmax(search.logits["edge0"], 0))


@pytest.mark.parametrize("name", ["darts", "dropnas", "small-temperature", "fbnet", "proxyless"])
def test_norms_of_candidates_learn_only_where_they_cannot_undo_a_weight(name):
    subject = learner(name)
    for t in range(2):
        subject.step(t)
    norms = {n: m for n, m in subject.network.named_modules() if isinstance(m, BatchNorm2d)}
    learnt = {n for n, m in norms.items() if (m.weight != 1).any() and (m.bias != 0).any()}
    candidates = {n for n in norms if n.startswith("cell")}
    assert len(candidates) == len(EDGES) and {"stem.1", "body.0.1"} <= learnt
    assert not (learnt & candidates) if name in {"darts", "dropnas", "small-temperature"} else learnt & candidates


def test_fbnet_draws_sharper_weights_as_it_goes_on():
    search = learner("fbnet", temperature=(5.0, 0.1)).teaching
    first, last = (search.logit_gates(lesson(progress))["edge0"].weights for progress in (0.0, 1.0))
    assert first.max() < 0.6 and last.max() > 0.95 and first.argmax() == last.argmax()
    drawn = [int(search.logit_gates(lesson(seed=seed))["edge0"].weights.argmax()) for seed in range(20)]
    assert set(drawn) == {0, 1, 2}


def test_fbnet_is_as_soft_in_the_warm_up_as_at_the_start():
    search = learner("fbnet", warmup=0.5).teaching
    before, start, later = (search.logit_gates(lesson(at))["edge0"].weights for at in (0.1, 0.5, 0.8))
    assert torch.equal(before, start) and later.max() > start.max()


def test_proxyless_moves_logits_without_momentum_or_decay():
    group = learner("proxyless").teaching.adam.param_groups[0]
    assert group["betas"] == (0.0, 0.999) and group["weight_decay"] == 0


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_a_logit_goes_as_far_as_it_can_reach(warmup):
    """Under a gradient that never turns, by the steps after the warm-up."""
    subject = learner("darts", total_steps=8, warmup=warmup, reach=4.0, decay=0.0)
    search = subject.teaching
    for _ in range(round(8 * (1 - warmup))):
        search.update(tuple(-torch.ones_like(values) for values in search.logits.values()), {})
    torch.testing.assert_close(search.logits["edge0"].detach(), torch.full((3,), 4.0))


def test_fbnet_multiplies_by_a_power_of_the_logarithm_of_time():
    search = learner("fbnet", table=TABLE, alpha=0.5, beta=2.0).teaching
    loss = search.objective(torch.tensor(3.0), torch.tensor(1e-6 * (np.e**2 - 1)))
    assert float(loss) == pytest.approx(3.0 * 0.5 * 2.0**2, rel=1e-4)


def layers_called(search, step):
    """Of each OneOf, how many different layers ran, and how many of them with history."""
    ran: dict[str, Counter] = {}
    handles = []
    for module in search.learner.network.modules():
        if isinstance(module, OneOf):
            for child in module.children():

                def count(layer, inputs, output, one=module.choice.name):
                    ran.setdefault(one, Counter())[torch.is_grad_enabled()] += 1

                handles.append(child.register_forward_hook(count))
    step()
    for handle in handles:
        handle.remove()
    return [ran.get(edge, Counter()) for edge in EDGES]  # of `none` nothing runs


def test_proxyless_computes_one_path_for_weights_and_two_for_logits():
    subject = learner("proxyless")
    search = subject.teaching
    steps = []
    learn = search._learn_logits
    search._learn_logits = steps.append
    paths = layers_called(search, lambda: subject.step(0))
    assert max(paths, key=len) == Counter({True: 1}) and all(path in (Counter({True: 1}), Counter()) for path in paths)
    search.forward_for_weights(steps[0])
    counts = layers_called(search, lambda: learn(steps[0]))
    assert counts == [Counter({True: 1, False: 1})] * len(EDGES)


def saved_bytes(net, call):
    """Bytes of all that a forward call keeps for its backward, but for the parameters of `net`."""
    own, kept = {p.untyped_storage().data_ptr() for p in net.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", ["mbconv", "fbnet"])
def test_proxyless_keeps_for_its_weights_what_one_network_does(name):
    net = SPACES[name].build(16, 1, 3, "tiny").train()
    search, x, drawn = learner("proxyless", net).teaching, torch.randn(2, 1, 16, 16), []
    forward = lambda arch: drawn.append(arch) or run(net, x, arch)  # noqa: E731
    given = SimpleNamespace(rng=np.random.default_rng(0), logits=forward)
    kept = saved_bytes(net, lambda: search.forward_for_weights(given))
    plain = extract(net, drawn[0])
    assert kept <= 1.02 * saved_bytes(plain, lambda: plain(x))


@pytest.mark.parametrize("name", ["darts", "proxyless"])
def test_what_is_not_relaxed_is_drawn_evenly_below_relaxed_choices(name):
    """All branches are run, so a choice is read whatever the choice that switches it on is drawn to be."""
    space = SearchSpace("below", (Choice("op", ("a", "b")), Choice("size", (4, 5, 6), Condition("op", ("b",)))))
    search, drawn = learner(name).teaching, Counter()
    search.learner.space = space
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn[search._drawn(SimpleNamespace(rng=rng))["size"]] += 1
    assert all(75 < drawn[size] < 125 for size in (4, 5, 6))


def test_proxyless_gates_pass_gradients_to_two_logits():
    """Equation 4, between the two that were drawn."""
    search = spread_(learner("proxyless").teaching)
    values, towards = search.logits["edge1"], torch.tensor([1.0, -2.0, 5.0])
    for seed in range(5):
        gate = search.logit_gates(lesson(seed=seed))["edge1"]
        (taken,) = set(gate.computed) - set(gate.silent)
        torch.testing.assert_close(gate.weights, torch.eye(3)[taken])
        (found,) = torch.autograd.grad((gate.weights * towards).sum(), values)
        pair = list(gate.computed)
        p = torch.softmax(values.detach()[pair], 0)
        expected = torch.zeros(3)
        for i in range(2):
            for j in range(2):
                expected[pair[i]] += towards[pair[j]] * p[j] * (float(i == j) - p[i])
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["proxyless", "dropnas"])
def test_options_that_were_off_keep_their_probabilities(name):
    subject = learner(name, table=TABLE, **({"rate": 0.3} if name == "dropnas" else {}))
    search = spread_(subject.teaching)
    for t in range(4):
        before, gates = probabilities(search), {}
        draw = search.logit_gates
        search.logit_gates = lambda given, draw=draw, gates=gates: gates.update(draw(given)) or gates
        subject.step(t)
        search.logit_gates = draw
        after = probabilities(search)
        for choice, gate in gates.items():
            off = [i for i in range(len(before[choice])) if i not in gate.computed]
            torch.testing.assert_close(after[choice][off], before[choice][off], rtol=1e-5, atol=1e-6)
        assert any(not torch.allclose(after[choice], before[choice], atol=1e-4) for choice in gates)


def test_dropnas_groups_options_with_and_without_weights():
    search = learner("dropnas").teaching
    assert search.groups["edge0"] == [[2], [0, 1]] and search.groups["act"] == [[0, 1]]


def test_dropnas_drops_at_its_rate_and_keeps_one_of_each_group():
    search = learner("dropnas", rate=0.25).teaching
    rng, kept = np.random.default_rng(0), Counter()
    for _ in range(2000):
        gate = search._kept("edge0", search.logits["edge0"], rng)
        assert 2 in gate.computed and {0, 1} & set(gate.computed)
        assert float(gate.weights.sum().detach()) == pytest.approx(1)
        kept.update(gate.computed)
    # Of two options, each dropped with 0.5, but not both: kept with 0.5 / 0.75.
    assert kept[0] / 2000 == pytest.approx(2 / 3, abs=0.04)


def test_dropnas_decays_logits_of_kept_options_only():
    search = spread_(learner("dropnas", decay=1.0, rate=0.5).teaching)
    before = {name: values.detach().clone() for name, values in search.logits.items()}
    gates = {name: search._kept(name, values, np.random.default_rng(4)) for name, values in search.logits.items()}
    assert any(len(gate.computed) < len(gate.weights) for gate in gates.values())
    seen = []
    search.adam.step = lambda: seen.extend(values.grad.clone() for values in search.logits.values())
    search.update(tuple(torch.zeros_like(values) for values in search.logits.values()), gates)
    for (name, values), gradient in zip(before.items(), seen, strict=True):
        on = torch.tensor([i in gates[name].computed for i in range(len(values))])
        torch.testing.assert_close(gradient, values * on)


def test_superkernels_are_of_kernels_and_expansions():
    search = learner("superkernel").teaching
    assert sorted(search.logits) == ["expansion0", "expansion1", "kernel0", "kernel1"]
    net = nas_bench_201(16, 1, 3, "tiny")
    with pytest.raises(ValueError, match=r"superkernel is for spaces with kernel sizes .* such as mbconv; 'CellNet"):
        learner("superkernel", net)


def test_superkernels_use_what_outgrows_its_threshold():
    subject = learner("superkernel", drop=0.0)
    search, net = subject.teaching, subject.network
    weight = net.get_submodule("body.0.3").weight  # 5 x 5, of up to 8 channels
    assert [gate.weights.tolist() for gate in search.logit_gates(lesson()).values()] == [[0, 1]] * 4
    with torch.no_grad():
        weight[:, :, [0, -1]] = weight[:, :, :, [0, -1]] = 0
        search.logits["kernel0"].fill_(0.1)
        weight[4:] *= 0.1
        search.logits["expansion0"].fill_(0.5)
    gates = search.logit_gates(lesson())
    assert gates["kernel0"].weights.tolist() == gates["expansion0"].weights.tolist() == [1, 0]
    gates["kernel0"].weights[1].backward()
    assert float(search.logits["kernel0"].grad) < 0  # a higher threshold, less of the larger kernel
    assert found_logits(SimpleNamespace(tensors={f"strategy/{k}": v for k, v in search.state().items()}))


@pytest.mark.parametrize(
    ("margins", "option"),
    [((0.4, 0.4), 2), ((0.4, -0.1), 1), ((-0.1, 3.0), 0), ((3.0, 0.1), 2), ((0.0, 0.4), 0), ((0.1, 0.2, -1.0, 5.0), 2)],
)
def test_superkernels_find_what_they_compute(margins, option):
    search = learner("superkernel", drop=0.0).teaching
    search.logits = {"kernel0": torch.zeros(len(margins), requires_grad=True)}
    search._sizes = lambda name: torch.tensor(margins)
    gate, found = search.logit_gates(lesson())["kernel0"], search.probabilities()["kernel0"]
    torch.testing.assert_close(gate.weights, torch.eye(len(margins) + 1)[option])
    assert np.argmax(search.state()["logits/kernel0"].numpy()) == option and float(
        found.sum().detach()
    ) == pytest.approx(1)
    (found @ torch.arange(len(margins) + 1.0)).backward()  # as a price on larger options
    gradient = search.logits["kernel0"].grad
    assert (gradient <= 0).all() and gradient[0] < 0


def test_small_temperature_mixes_few_options_and_sharpens():
    subject = learner("small-temperature", temperature=(1.0, 0.05), kept=2)
    search = spread_(subject.teaching)
    gate = search.logit_gates(lesson())["edge0"]
    assert len(gate.computed) == 2 and float(gate.weights.sum().detach()) == pytest.approx(1)
    search.progress = 0.0
    soft = probabilities(search)["edge0"].max()
    search.progress = 0.9
    assert probabilities(search)["edge0"].max() > max(0.95, soft)


def test_small_temperature_keeps_options_apart_whose_probabilities_vanish():
    search = learner("small-temperature").teaching
    search.progress = 1.0  # at a temperature of 0.05
    values = torch.tensor([3.0, -1.0, -2.0])
    with torch.no_grad():
        search.logits["edge0"].copy_(values)
    found = found_logits(SimpleNamespace(tensors={f"strategy/{k}": v for k, v in search.state().items()}))
    torch.testing.assert_close(found["edge0"].double(), (values.double() - 3) / 0.05)


def test_temperature_follows_the_schedule_or_the_entropy():
    wide, close = np.array([0.0, 4.0, -3.0]), np.array([0.0, 0.1, -0.1])
    assert adapted(wide, (1.0, 0.01), 0.5) == pytest.approx(0.1)
    sharper = adapted(close, (1.0, 0.01), 0.5)
    p = np.exp(close / sharper) / np.exp(close / sharper).sum()
    assert sharper < 0.1 and -(p * np.log(p)).sum() == pytest.approx(0.1 * np.log(3), rel=1e-3)
    for tied in (np.zeros(3), np.array([0.2, 0.2, 0.1])):  # no temperature has them at a tenth of the entropy
        assert adapted(tied, (1.0, 0.01), 0.5) == pytest.approx(0.1)


def test_noise_does_not_make_close_logits_one_hot():
    """At first the schedule's entropy is nearly the greatest, however little the logits differ."""
    search = learner("small-temperature", kept=3).teaching
    with torch.no_grad():
        search.logits["edge0"].copy_(torch.linspace(0, 3e-4, 3))
    search.progress = 0.02
    peaks = [float(search.logit_gates(lesson(0.02, seed))["edge0"].weights.detach().max()) for seed in range(20)]
    noiseless = float(search.probabilities()["edge0"].detach().max())
    assert noiseless < 0.55 and np.mean(peaks) == pytest.approx(noiseless, abs=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Darts(reach=0.0), "reach must be finite and above 0, got 0.0"),
        (lambda: Darts(warmup=1.0), "warmup must be at least 0 and below 1, got 1.0"),
        (lambda: FBNet(temperature=(1.0, 0.0)), "temperature and alpha must be finite and above 0, got 0.0"),
        (lambda: ProxylessNAS(cost_weight=-1.0), "cost_weight must be finite and at least 0, got -1.0"),
        (lambda: DropNAS(rate=1.0), "rate must be at least 0 and below 1, got 1.0"),
        (lambda: SmallTemperature(kept=0), "kept must be an integer of at least 1, got 0"),
        (lambda: SuperKernel(drop=2.0), "drop must be between 0 and 1, got 2.0"),
    ],
)
def test_settings_outside_their_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_proxyless_adds_expected_time_as_a_share_of_that_of_all_options_alike():
    search = learner("proxyless", table=TABLE, cost_weight=0.5).teaching
    usual = search.expected(search.probabilities()).detach()
    assert float(search.objective(torch.tensor(3.0), 2 * usual)) == pytest.approx(3.0 + 0.5 * 2)
