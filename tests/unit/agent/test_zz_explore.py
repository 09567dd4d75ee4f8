# SPDX-License-Identifier: Apache-2.0
import json, threading, time
import msgspec, pytest
from skerry.trust import dsse
from skerry.trust.assignment import sign_assignment
from skerry.wire.v1.device import Assignment, WorkloadSpec, BundleRef, target_path
from support.victim import public

def tree(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())

def wait(s): threading.Event().wait(s)

def running(bench):
    v1 = bench.owner.release("1.0.0", 1)
    bench.join(); bench.hub.assign(bench.spec(v1)); bench.start(); bench.committed(v1)
    return v1

@pytest.mark.parametrize("name", ["../floors", "../device", "a/../../../x", "nul\0name", "", "x"*300, "."])
def test_name(bench, name):
    v1 = running(bench)
    bench.hub.assign(bench.spec(v1), bench.spec(v1, name=name))
    wait(3)
    print("DEFECT", bench.agent._defect, "STOPPING", bench.agent._stopping.is_set())
    print(tree(bench.state.parent))
    print((bench.state/"floors.json").read_bytes()[:200])
    print([ (e.kind,dict(e.fields).get("reason")) for e in bench.hub.history()])

@pytest.mark.parametrize("digest", ["sha256:../workloads", "sha256:..", "../../../"])
def test_digest(bench, digest):
    v1 = running(bench)
    (bench.state.parent/"precious").mkdir(); (bench.state.parent/"precious/f").write_text("x")
    evil = msgspec.structs.replace(v1, digest=digest)
    bench.hub.assign(bench.spec(v1), bench.spec(evil, name="evil"))
    wait(3)
    print("DEFECT", bench.agent._defect, "STOPPING", bench.agent._stopping.is_set())
    print(tree(bench.state.parent))
    print([ (e.kind,dict(e.fields).get("reason")) for e in bench.hub.history()])

def test_floors_gone(bench):
    v1 = running(bench)
    bench.stop()
    (bench.state/"floors.json").unlink()
    try:
        bench.start()
        wait(2)
        print(bench.workload())
    except Exception as e:
        print("START", type(e), e)

def test_catalogue_gone(bench):
    import shutil
    v1 = running(bench)
    bench.stop()
    shutil.rmtree(bench.state/"catalogue")
    bench.hub.stop()
    bench.start()
    wait(3)
    print(bench.workload(), bench.agent._defect)
    bench.hub.start()
    wait(3)
    v2 = bench.owner.release("2.0.0", 2)
    bench.hub.assign(bench.spec(v2)); bench.committed(v2)
