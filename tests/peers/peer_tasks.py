"""What learners that agree with each other do, in processes of their own; each puts what it has found into a file."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from builders import make_batch
from helpers import lively, make_network

from a3c import A3C
from a3c.learner.learning import Learning
from a3c.learner.log_window import LogWindow
from a3c.learner.objective import Objective
from a3c.learner.reuse import Reuse
from a3c.networks.normalisation import Normalisation
from a3c.peers import agreement
from a3c.peers.agreement import LearnerLostError, LearnersDifferError, Moments
from a3c.peers.gradients import Share, join_gradients
from a3c.returns import GAE
from a3c.rollouts.progress import Progress

LEARNERS = 3


def begin(folder, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=LEARNERS)
    tasks = (exchanged, pooled_moments, joined_gradients, counted, updated, updated_by_sums, differing, lost)
    found = {task.__name__: task(rank) for task in tasks}
    (Path(folder) / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def exchanged(rank):
    tensors = [torch.full((2, 3), float(rank)), torch.full((1,), rank + 1)]
    agreement.add_up(tensors)
    first = [torch.full((2,), float(rank)), torch.full((3,), rank)]
    agreement.take_over(first)
    mean = [torch.tensor([float(rank)]), torch.tensor([rank])]
    agreement.average(mean)
    return {
        "exchange": agreement.exchange([rank, 2.0**40 + rank]),
        "gather": agreement.gather({"rank": rank}),
        "sums": [tensor.tolist() for tensor in tensors],
        "first": [tensor.tolist() for tensor in first],
        "mean": [tensor.tolist() for tensor in mean],
        "who": (agreement.rank(), agreement.size()),
    }


SAMPLES = [torch.randn(7, 2, generator=torch.Generator().manual_seed(1)) * 3 + 5, torch.ones(1, 2), torch.empty(0, 2)]


def pooled_moments(rank):
    sample = SAMPLES[rank].double()
    if len(sample):
        variance, mean = torch.var_mean(sample, 0, correction=0)
    else:
        variance = mean = torch.full((2,), torch.nan, dtype=torch.float64)
    return agreement.pooled(Moments(len(sample), mean, variance))


def joined_gradients(rank):
    """Of learner 2 no step is real; of the second parameter only learner 1 has a gradient, of the third none has."""
    found = {}
    for is_mean in (True, False):
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
        steps = (3, 1, 0)[rank]
        parameters[0].grad = torch.full((2,), float(rank + 1)) if steps else torch.zeros(2)
        parameters[1].grad = torch.ones(2) if rank == 1 else None
        share = join_gradients(parameters, Share(torch.tensor(1.0), steps, rank == 2), is_mean)
        found[is_mean] = [each.grad for each in parameters], share
    share = join_gradients(
        [torch.nn.Parameter(torch.zeros(1))], Share(torch.tensor(torch.nan if rank else 0.0), 1, False), True
    )
    return found | {"loss": share.loss}


def differing(rank):
    """One of them goes on from another checkpoint, and one has come to other weights."""
    found = []
    model = A3C(make_network(), GAE(8))
    model.updates = 5 if rank == 1 else 7
    model._mode = SimpleNamespace(progress=Progress())
    network = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(network.weight, float(rank == 2))
    torch.nn.init.zeros_(network.bias)
    for step in (model._begin_alike, lambda: LogWindow().share(network)):
        try:
            step()
        except LearnersDifferError as error:
            found.append(str(error))
    return found


def lost(rank):
    if rank == 1:
        return None
    try:
        while True:
            agreement.exchange([0.0])
    except LearnerLostError as error:
        return str(error)


def counted(rank):
    progress = Progress()
    progress.load_state_dict(progress.state_dict() | {"trained": 100, "dropped": {"max_lag": 5}})
    progress.trained += 10 * (rank + 1)
    progress.dropped["worker_death"] += rank
    progress.collected += 50
    before = progress.env_steps
    more = progress.share(rank, 7.0)
    agreed = (progress.trained, dict(+progress.dropped), progress.collected, progress.env_steps)
    progress.reject(10 * (rank + 1))
    progress.share()
    return {
        "before": before,
        "more": more,
        "agreed": agreed,
        "rejected": (progress.trained, progress.dropped["bad_update"]),
    }


def halves():
    """A batch of six columns with ends and masked steps, and how learners share it: unevenly."""
    generator = torch.Generator().manual_seed(3)
    steps, columns = 5, 6
    shape = (steps, columns)
    mask = torch.rand(shape, generator=generator) > 0.2
    mask[:, 5] = torch.tensor([True, False, False, False, False])
    batch = make_batch(
        rewards=torch.randn(shape, generator=generator).tolist(),
        terminated=(torch.rand(shape, generator=generator) > 0.8).tolist(),
        mask=mask.tolist(),
    )
    observations = torch.randn(steps + 1, columns, 2, generator=generator) * 4 + 1
    actions = torch.randint(3, shape, generator=generator)
    return batch._replace(observations=observations, actions=actions), [slice(0, 2), slice(2, 5), slice(5, 6)]


def only(batch, columns):
    axes = {"env_ids": 0, "segment_ids": 0, "state": 0}
    return type(batch)(
        *(
            field[columns] if axes.get(name) == 0 or field.dim() == 1 else field[:, columns]
            for name, field in batch._asdict().items()
        )
    )


def updated(rank, reduction="mean", passes=3):
    """Make two updates of an own share of a batch; of all of it where the learner is alone."""
    network = lively(make_network())
    Normalisation(True, 5.0, True, 0.1).attach(network)
    learning = Learning(
        Objective(GAE(5), reduction=reduction, normalise_advantages=True, entropy_coefficient=0.01),
        max_grad_norm=0.5,
        reuse=Reuse(passes=passes, target_kl=10.0 if passes > 1 else None),
    )
    optimizer, guard = torch.optim.Adam(network.parameters(), lr=0.05), learning.make_guard()
    batch, shares = halves()
    mine = batch if agreement.size() == 1 else only(batch, shares[rank])
    for _ in range(2):
        made = []
        for step in learning.gradient_steps(network, mine, 0, (1,)):
            optimizer.zero_grad()
            step.loss.backward()
            share = Share(step.loss.detach(), int(step.trace.mask.sum()), False)
            joint = join_gradients(network.parameters(), share, reduction == "mean")
            assert guard.admit(network, [joint.loss]) is not None
            optimizer.step()
            made.append(step)
        learning.objective.take_in(network, made[0].estimation)
    return {name: value.clone() for name, value in network.state_dict().items()}


def updated_by_sums(rank):
    return updated(rank, reduction="sum", passes=1)
