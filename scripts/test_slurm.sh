#!/usr/bin/env bash
# Runs a plan of shards on a real Slurm of three nodes, built here of network namespaces, loses a node, a process and a device on the way, and compares
# what comes out with one process. Exit 0: the same bytes. Exit 77: it cannot run here, and says why.
# Needs root and Debian's slurmctld, slurmd, slurm-client, munge and iproute2. Nothing of the machine's own is changed: the cluster has its own
# key, sockets, names and folders in a temporary one, and all of it is taken down at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
shards=${SHARDS:-12}

for program in slurmctld slurmd sbatch munged ip nsenter unshare; do
  command -v $program > /dev/null || { echo "cannot run: there is no $program (apt-get install slurmctld slurmd slurm-client munge iproute2)"; exit 77; }
done
[ "$(id -u)" -eq 0 ] || { echo "cannot run: network namespaces need root"; exit 77; }

work=$(mktemp -d /tmp/performer-slurm.XXXXXX)
chmod 755 "$work"
id=$$
net() { echo "pf$id-$1"; }
ip netns add "$(net ctl)" 2> /dev/null || { rm -rf "$work"; echo "cannot run: network namespaces are not allowed here"; exit 77; }

down() {
  code=$?
  set +e
  if [ "$code" -ne 0 ] && [ "$code" -ne 77 ]; then
    tail -n 15 "$work"/log/* "$work"/run/logs/* 2> /dev/null
  fi
  for node in ctl n1 n2 n3; do
    ip netns pids "$(net $node)" 2> /dev/null | xargs -r kill -9 2> /dev/null
    ip netns del "$(net $node)" 2> /dev/null
  done
  [ -s "$work/munged.pid" ] && kill "$(cat "$work/munged.pid")" 2> /dev/null
  rm -rf "$work"
  exit "$code"
}
trap down EXIT

say() { echo "$(date +%T) $*"; }

# One bridge in the controller's namespace, a pair of wires to each node.
mkdir -p "$work"/{log,state,spool,run,bin,secret}
in_net() { nsenter --net="/run/netns/$(net "$1")" "${@:2}"; }
in_net ctl ip link set lo up
in_net ctl ip link add bridge type bridge
in_net ctl ip addr add 10.77.0.10/24 dev bridge
in_net ctl ip link set bridge up
for i in 1 2 3; do
  ip netns add "$(net n$i)"
  in_net ctl ip link add "to$i" type veth peer name eth0 netns "$(net n$i)"
  in_net ctl ip link set "to$i" master bridge up
  in_net n$i ip addr add "10.77.0.$i/24" dev eth0
  in_net n$i ip link set eth0 up
  in_net n$i ip link set lo up
done
printf '127.0.0.1 localhost\n10.77.0.10 ctl\n10.77.0.1 n1\n10.77.0.2 n2\n10.77.0.3 n3\n' > "$work/hosts"

# Runs a command on a node: its network, its name, the cluster's names of machines. (ip netns exec would mount another /sys, without control groups.)
on() {
  local node=$1
  shift
  in_net "$node" unshare --uts --mount bash -c 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; exec "$@"' "$node" "$work/hosts" "$@"
}

head -c 1024 /dev/urandom > "$work/secret/key"
chmod 600 "$work/secret/key"
munged --force --key-file="$work/secret/key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" \
  --log-file="$work/log/munged.log" --seed-file="$work/secret/seed" --num-threads=2 2> /dev/null

cat > "$work/slurm.conf" <<CONF
ClusterName=performer
SlurmctldHost=ctl(10.77.0.10)
AuthInfo=socket=$work/munge.socket
SlurmUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/%n.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdLogFile=$work/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,defer_batch
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=4
MessageTimeout=3
TCPTimeout=1
MinJobAge=3600
ReturnToService=2
PropagateResourceLimits=NONE
NodeName=n1 NodeAddr=10.77.0.1 CPUs=1
NodeName=n2 NodeAddr=10.77.0.2 CPUs=1
NodeName=n3 NodeAddr=10.77.0.3 CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$work/slurm.conf
on ctl slurmctld -D -f "$SLURM_CONF" > "$work/log/slurmctld.out" 2>&1 &
for i in 1 2 3; do
  mkdir -p "$work/spool/n$i"
  on n$i slurmd -D -N n$i -f "$SLURM_CONF" > "$work/log/n$i.out" 2>&1 &
done
ctl() { on ctl "$@"; }

# Waits until a command says yes; ends the test when it does not in time.
until_() {
  local what=$1 seconds=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" > /dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then say "gave up after $seconds s waiting until $what"; return 1; fi
    sleep 0.3
  done
}
idle() { [ "$(ctl sinfo -h -t idle -o %D)" = 3 ]; }
until_ "three nodes are idle" 30 idle
say "Slurm $(sinfo --version | cut -d' ' -f2) with three nodes is up"

# The program, with faults: a device that is lost once (exit 75, shard 5), a process that dies (shard 6), tasks that take a while on node n2 (to be lost).
bun=$root/node_modules/.bin/bun
cat > "$work/bin/performer" <<PROGRAM
#!/usr/bin/env bash
args=" \$* "
echo "\$(hostname) \$*" >> "$work/log/calls"
once() { mkdir "$work/state/\$1" 2> /dev/null; }
case "\$args" in
  *" map "*"--id 5 "*) once lost && { echo "device lost" >&2; exit 75; } ;;
  *" map "*"--id 6 "*) once died && kill -9 \$\$ ;;
esac
case "\$args" in *" map "*) [ "\$(hostname)" = n2 ] && once slow && { touch "$work/state/busy"; sleep 300; } ;; esac
exec "$bun" "$root/cli.ts" "\$@"
PROGRAM
chmod +x "$work/bin/performer"
performer() { "$bun" "$root/cli.ts" "$@"; }

cd "$work/run"
"$bun" -e '
  const { npyBytes, wave } = await import(process.argv[1] + "/tests/cli/process.ts");
  for (const [i, name] of ["q", "k", "v"].entries()) {
    await Bun.write(`${name}.npy`, npyBytes([2, 600, 16], (at) => 0.8 * wave(at + 1e6 * i)));
  }
' "$root"
performer shard plan q.npy k.npy v.npy --shards "$shards" -m 64 -o plan.json
performer shard script plan.json --engine slurm --backend scalar --program "$work/bin/performer" -o run.sh

queue() { ctl squeue -h -r -o "%i %j %T %N"; }
# Nothing is left to do. What was put back waits two minutes before it may start (until the credentials of its last start are void): lifted here.
over() {
  ctl squeue -h -r -t PENDING -o "%i %r" | awk '$2 == "BeginTime" {print $1}' | while read -r job; do
    ctl scontrol update JobId="$job" StartTime=now || true
  done
  [ -z "$(queue)" ]
}
start() { ctl bash run.sh; }

say "first run: node n2 is lost, shard 6 dies, shard 5 loses its device"
start
until_ "a task is busy on n2" 60 test -e "$work/state/busy"
ip netns pids "$(net n2)" | xargs -r kill -9
in_net ctl ip link set to2 down
say "n2 is gone"
until_ "Slurm has seen it" 60 bash -c "$(declare -f ctl on in_net net); id=$id work=$work; ctl sinfo -h -N -n n2 -o %T | grep -q down"
say "Slurm took the task of n2 back: $(ctl squeue -h -r -t PENDING -o '%i %r' | head -1)"
until_ "everything has ended" 90 over
grep -c . "$work/log/calls" > /dev/null
grep -hq "device lost" logs/*.log
say "what failed for good stopped the rest: $(performer shard status plan.json states/ | grep -E 'folder|missing' | xargs)"
[ ! -e kv.safetensors ]
performer shard status plan.json states/ --json > status.json && { say "status ought to exit 5"; exit 1; }
"$bun" -e '
  const { folders: [{ done, missing, damaged }] } = await Bun.file("status.json").json();
  const wanted = `${Number(process.argv[1]) - 1} 6 `;
  if (`${done} ${missing} ${damaged}` !== wanted) throw new Error(`${done} done, missing ${missing}, damaged ${damaged}; wanted ${wanted}`);
' "$shards"

say "second run: the same script again, on the two nodes that are left"
start
until_ "everything has ended" 90 over
performer shard status plan.json states/ out/
performer attend --q q.npy --k k.npy --v v.npy -m 64 --backend scalar --check 0 -o one.npy -q
cmp out.npy one.npy
computed=$(grep -c ' shard map ' "$work/log/calls")
spread=$(cut -d' ' -f1 "$work/log/calls" | sort | uniq -c | xargs)
say "outputs of $shards shards are those of one process, to the byte; $computed calls of map, calls per node: $spread"

say "a model of two layers: every layer waits for the one before"
mkdir "$work/run/model"
cd "$work/run/model"
golden=$root/tests/golden/lm/reversible
settings=(--config "$golden/config.json")
performer shard plan "$golden/tokens.npy" --weights "$golden/model.pt" "${settings[@]}" --shards 3 --output-dtype f64 -o plan.json -q
performer shard script plan.json --engine slurm --backend scalar --program "$work/bin/performer" -o run.sh -q
start
until_ "everything has ended" 90 over
performer shard status plan.json -q
performer run "$golden/model.pt" "$golden/tokens.npy" "${settings[@]}" --compat exact --backend scalar --output-dtype f64 -o one.npy -q
"$bun" -e '
  const { readNpyBytes } = await import(process.argv[1] + "/tests/cli/process.ts");
  const [a, b] = await Promise.all(["out.npy", "one.npy"].map(async (name) => readNpyBytes(await Bun.file(name).bytes()).data));
  const worst = Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  if (!(worst <= 1e-12 * Math.max(...b.map(Math.abs)))) throw new Error(`outputs differ by ${worst}`);
' "$root"
say "outputs of 3 shards in 2 layers are those of performer run, to 1e-12"

command -v snakemake > /dev/null || { say "no Snakemake here: it is not tried over Slurm"; exit 0; }
say "Snakemake over the same Slurm, causal"
mkdir "$work/run/snake"
cd "$work/run/snake"
performer shard plan ../q.npy ../k.npy ../v.npy --shards 4 -m 64 --causal -o plan.json -q
performer shard script plan.json --engine snakemake --backend scalar --program "$work/bin/performer" -o Snakefile -q
ctl env HOME="$work" snakemake -s Snakefile --jobs 8 --latency-wait 20 --max-status-checks-per-second 20 --quiet --nocolor \
  --cluster "sbatch --parsable --output=$work/log/snake-%j.log" > "$work/log/snakemake" 2>&1
performer attend --q ../q.npy --k ../k.npy --v ../v.npy -m 64 --causal --backend scalar --check 0 -o one.npy -q
"$bun" -e '
  const { readNpyBytes } = await import(process.argv[1] + "/tests/cli/process.ts");
  const [a, b] = await Promise.all(["out.npy", "one.npy"].map(async (name) => readNpyBytes(await Bun.file(name).bytes()).data));
  const worst = Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  if (!(worst <= 1e-6)) throw new Error(`outputs differ by ${worst}`);
' "$root"
say "outputs of 4 causal shards are those of one process, to float32"
