#!/bin/sh
# Process 1 of the guest that turns packages into a system: guests/src/distribution/setup.rs starts it, gives it a disk
# "input" (an archive with debs/ and files/) and an empty disk "output", on which it leaves the system as an archive.
# SOURCE_DATE_EPOCH and KERNEL come from the kernel's command line.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC TERM=dumb
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true PYTHONHASHSEED=0
busybox=/build/busybox

fail() {
    echo "SETUP-FAILED $*"
    $busybox poweroff -f
}

stage() {
    read -r up _ </proc/uptime
    echo "SETUP at $up s: $*"
}

disk() {
    found=$(grep -lx "$1" /sys/block/vd*/serial) || fail "no disk $1"
    found=${found#/sys/block/}
    echo "/dev/${found%/serial}"
}

$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t tmpfs tmpfs /run
$busybox mount -t tmpfs tmpfs /tmp
while read -r module; do
    $busybox insmod "/build/modules/$module" || fail "module $module"
done </build/order

stage reading packages
tar -C /build -xf "$(disk input)" || fail input
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
ln -sf mawk /usr/bin/awk
mkdir -p /etc/dpkg/dpkg.cfg.d
cp /build/files/etc/dpkg/dpkg.cfg.d/* /etc/dpkg/dpkg.cfg.d/

dpkg="dpkg --force-depends --force-unsafe-io --force-confdef"
stage unpacking
$dpkg --install /build/debs/base-passwd_*.deb || fail base-passwd
$dpkg --install /build/debs/base-files_*.deb || fail base-files
$dpkg --unpack /build/debs/*.deb || fail unpacking
rm -rf /build/debs
stage configuring
$dpkg --configure --pending || fail configuring
dpkg --audit | grep . && fail "dpkg is not content"

stage finishing
cp -a /build/files/. / || fail files
depmod "$KERNEL" || fail depmod
while read -r line; do
    systemctl --root=/ $line || fail "$line"
done </build/units
# What belongs to one machine or to this run.
rm -f /etc/ssh/ssh_host_* /usr/sbin/policy-rc.d /var/lib/dbus/machine-id /var/lib/systemd/random-seed
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/.pwd.lock /etc/subuid- /etc/subgid- /var/lib/dpkg/*-old /var/cache/debconf/*-old
rm -rf /var/cache/ldconfig /var/cache/apt /var/lib/apt/lists /root/.bash_history
find /var/log -type f -delete
mkdir -p /var/cache/apt/archives/partial /var/lib/apt/lists/partial
: >/etc/machine-id
# All that a first boot would bring up to date is.
: >/etc/.updated
: >/var/.updated

stage writing
tar -C / --create --file="$(disk output)" --one-file-system --exclude=./build --exclude=./init --sort=name \
    --mtime="@$SOURCE_DATE_EPOCH" --numeric-owner --format=gnu . || fail output
sync
stage done
echo SETUP-DONE
$busybox poweroff -f
