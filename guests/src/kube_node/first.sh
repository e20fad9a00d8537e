#!/bin/sh
# First process of a node that is a machine: its drivers, then its disk as its root. What each run brings (/node) goes along.
export PATH=/bin
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "node: no $module here"
done
until [ -b /dev/vda ]; do usleep 20000; done
mount -t ext4 -o noatime,noinit_itable /dev/vda /root
cp -r /node /root/node
mount --move /dev /root/dev
exec switch_root /root /bin/sh /node/run.sh
