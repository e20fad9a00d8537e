#!/bin/sh
# First process of the lab's host: mounts, network, KVM, and then either one job (/lab/job) or the agent.
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/usr/lib/applets HOME=/root

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec 0</dev/console 1>/dev/console 2>&1
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
hostname lab
ulimit -n 65536

for module in $(cat /lab/modules/order); do
    # A host without the hypervisor extension refuses kvm, as it should.
    insmod "/lab/modules/$module" || echo "rvm-lab: no $module here"
done
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
    ip route add default via 10.0.2.2
fi

if [ -x /lab/job ]; then
    /lab/job
else
    rvm-lab-agent serve 0.0.0.0:7000
fi
sync
poweroff -f
