# The node's first process, before it has a root of its own: makes that root and goes on there.
#
#   $1 the node's folder   $2 its cgroups' name   $3 the root it starts from   $4 kubelet's folder
set -e
folder=$1 root=$1/root
mkdir -p "$root" "$folder/over" "$folder/work" "$folder/containerd" "$folder/kubelet" "$folder/fixed"
mount -t overlay -o "lowerdir=$3,upperdir=$folder/over,workdir=$folder/work" overlay "$root"
cd "$root"
mkdir -p proc sys dev run tmp root opt/kube etc/cni/net.d etc/containerd var/log var/lib/containerd var/lib/kubelet old ".$folder"
chmod 1777 tmp
[ -e lib64 ] || ln -s usr/lib64 lib64

mount -t proc proc proc
mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    # Where there are groups below, there may be no processes. One may have ended meanwhile, and not every controller can be
    # had here: which are missed, kubelet says.
    mkdir sys/fs/cgroup/node
    for one in $(cat sys/fs/cgroup/cgroup.procs); do echo "$one" >sys/fs/cgroup/node/cgroup.procs || true; done
    for one in $(cat sys/fs/cgroup/cgroup.controllers); do echo "+$one" >sys/fs/cgroup/cgroup.subtree_control || true; done
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    for tree in /sys/fs/cgroup/*/; do
        name=$(basename "$tree")
        [ -e "$tree/cgroup.procs" ] && [ ! -e "$tree/cgroup.controllers" ] || continue
        mkdir "sys/fs/cgroup/$name"
        case $name in systemd) which=none,name=systemd ;; *) which=$name ;; esac
        mount -t cgroup -o "$which" cgroup "sys/fs/cgroup/$name"
    done
fi
# Devices of its own, with modes of their own: a handler opens some to all. What udev opens to all, is.
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm dev/mqueue
for device in null zero full random urandom tty kmsg fuse kvm vhost-net net/tun loop-control; do
    [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "dev/$device"
done
# Those of them that are in use here are others'.
for number in $(seq 0 31); do mknod -m 660 "dev/loop$number" b 7 "$number"; done
[ ! -e dev/net/tun ] || chmod 666 dev/net/tun
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%%:*}" "dev/${stream#*:}"; done
mount -t tmpfs -o mode=755 run run
mkdir run/lock run/netns
mount --bind "$folder" ".$folder"
mount --bind "$folder/containerd" var/lib/containerd
mount --bind "$folder/kubelet" var/lib/kubelet
mount --bind "$4" opt/kube

# kubelet wants these so, and sets them for the whole machine where they are not. Here it reads that they are.
fix() {
    [ -e "proc/sys/$1" ] || return 0
    echo "$2" >"$folder/fixed/$(echo "$1" | tr / .)"
    mount --bind "$folder/fixed/$(echo "$1" | tr / .)" "proc/sys/$1"
}
fix vm/overcommit_memory 1
fix vm/panic_on_oom 0
fix kernel/panic 10
fix kernel/panic_on_oops 1
fix kernel/keys/root_maxkeys 1000000
fix kernel/keys/root_maxbytes 25000000

for family in iptables ip6tables; do
    for verb in '' -save -restore; do ln -sfn xtables-nft-multi "usr/sbin/$family$verb"; done
done
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
echo root:x:0: >etc/group
echo "127.0.0.1 localhost" >etc/hosts
: >etc/resolv.conf
printf '%032x\n' $$ >etc/machine-id
cp "$folder/network.conflist" etc/cni/net.d/10-pods.conflist

pivot_root . old
umount -l /old
rmdir /old
exec chroot . /bin/sh "$folder/run.sh" "$folder"
