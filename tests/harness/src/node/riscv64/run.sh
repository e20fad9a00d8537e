# A node that is a machine, once its disk is its root: mounts, network, then containerd, kubelet, kube-proxy and the agent.
# /node/settings says who it is.
. /node/settings
export PATH=/usr/sbin:/usr/bin:/opt/kube HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
exec 0</dev/console 1>/dev/console 2>&1
ln -sfn /proc/self/fd /dev/fd
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/netns
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# What kubelet mounts, containers see.
mount --make-rshared /
ulimit -n 1048576
echo "$name" >/proc/sys/kernel/hostname
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
cp /node/network.conflist /etc/cni/net.d/10-pods.conflist

# Runs a program of the node; a node that has lost one is at its end, and says so on its serial line.
keep() {
    program=$1
    name_of=$(basename "$1")
    shift
    {
        "$program" "$@" >"/var/log/$name_of.log" 2>&1
        echo "node: $name_of ended ($?)"
    } &
}

keep containerd --config /node/containerd.toml
keep /node/rvm-lab-agent serve "$address:7000"
# kubelet does not wait for it.
until [ -S /run/containerd/containerd.sock ]; do sleep 0.1; done
keep kubelet --config /node/kubelet.yaml --kubeconfig /node/kubelet.conf --hostname-override "$name" --node-ip "$address"
keep kube-proxy --config /node/proxy.yaml
while :; do wait; sleep 1; done
