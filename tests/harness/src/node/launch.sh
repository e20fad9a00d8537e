# Begins a node: puts itself into cgroups of the node's own and becomes its first process, in namespaces of its own.
#
#   $1 the node's folder   $2 its cgroups' name   $3 the root it starts from   $4 kubelet's folder
set -e
set_up=$1/set-up.sh
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$2"
    echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
else
    for tree in /sys/fs/cgroup/*/; do
        [ -e "$tree/cgroup.procs" ] && [ ! -e "$tree/cgroup.controllers" ] || continue
        mkdir -p "$tree$2"
        # A cgroup of processors takes nobody before it is told which.
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$tree$file" ] || cat "$tree$file" >"$tree$2/$file"
        done
        echo $$ >"$tree$2/cgroup.procs"
    done
fi
exec unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child sh "$set_up" "$@"
