# The node's first process, in its own root: the network, containerd, and kubelet with kube-proxy once they are asked for.
#
#   $1 the node's folder, which lies at the same place as outside
folder=$1
export PATH=/usr/sbin:/usr/bin:/opt/kube HOME=/root
set -e
# What kubelet mounts, containers see.
mount --make-rshared /
echo n1 >/proc/sys/kernel/hostname
ip link set lo up
# Addresses of pods and of Services lie behind the node's own; one that nobody has leads nowhere.
ip link add node0 type veth peer name node1
ip addr add 198.18.0.1/24 dev node0
ip link set node0 up
ip link set node1 up
ip route add default via 198.18.0.254 dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
[ ! -e /proc/sys/net/bridge ] || echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
set +e

# Runs a program of the node; a node that has lost one is at its end.
keep() {
    name=$1
    shift
    {
        "$@" >"$folder/$name.log" 2>&1
        echo "$name ended ($?)" >>"$folder/ended"
    } &
}

touch "$folder/up"
keep containerd containerd --config "$folder/containerd.toml"
until [ -e "$folder/join" ]; do sleep 0.05; done
keep kubelet kubelet --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubelet.conf" --hostname-override n1 --node-ip 198.18.0.1
keep kube-proxy kube-proxy --config "$folder/proxy.yaml"
while :; do wait; sleep 1; done
