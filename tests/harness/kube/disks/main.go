// A driver of disks by the Container Storage Interface, for a node of the tests: its volumes are below one folder of the node. It is
// what stands between a claim and a pod on real clusters, with the interface's and kubelet's own definitions, and keeps nothing itself.
//
//	disks FOLDER KUBELET NODE     serves until it is ended; "ready" is printed once kubelet may call
//
// A volume whose mode is Filesystem is the folder FOLDER/HANDLE; one whose mode is Block is the file FOLDER/HANDLE, behind a loop device.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	name    = "disks.rvm.test"
	version = "1.0.0"
)

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	folder, socket, node string
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: disks FOLDER KUBELET NODE")
		os.Exit(2)
	}
	place := filepath.Join(os.Args[2], "plugins", name)
	one := &driver{folder: os.Args[1], socket: filepath.Join(place, "csi.sock"), node: os.Args[3]}
	ended := make(chan error)
	err := os.MkdirAll(place, 0o755)
	if err == nil {
		err = serve(one.socket, ended, func(server *grpc.Server) {
			csi.RegisterIdentityServer(server, one)
			csi.RegisterNodeServer(server, one)
		})
	}
	if err == nil {
		// From now on kubelet knows of it.
		err = serve(filepath.Join(os.Args[2], "plugins_registry", name+"-reg.sock"), ended, func(server *grpc.Server) {
			registration.RegisterRegistrationServer(server, one)
		})
	}
	if err == nil {
		fmt.Println("ready")
		err = <-ended
	}
	fmt.Fprintln(os.Stderr, "disks:", err)
	os.Exit(1)
}

func serve(socket string, ended chan<- error, register func(*grpc.Server)) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	register(server)
	go func() { ended <- server.Serve(listener) }()
	return nil
}

// What kubelet asks who has registered.

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: name, Endpoint: d.socket, SupportedVersions: []string{version},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, told *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	fmt.Println("registered:", told.PluginRegistered, told.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

// What a driver is.

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: version}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// What it does.

func (d *driver) NodePublishVolume(_ context.Context, asked *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	source, target := filepath.Join(d.folder, filepath.Base(asked.VolumeId)), asked.TargetPath
	if mounted(target) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	var err error
	if asked.VolumeCapability.GetBlock() != nil {
		if source, err = attach(source); err == nil {
			err = os.WriteFile(target, nil, 0o600)
		}
	} else {
		err = os.MkdirAll(target, 0o750)
	}
	if err == nil {
		err = syscall.Mount(source, target, "", syscall.MS_BIND, "")
	}
	if err == nil && asked.Readonly {
		err = syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	}
	return &csi.NodePublishVolumeResponse{}, told(err)
}

func (d *driver) NodeUnpublishVolume(_ context.Context, asked *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if mounted(asked.TargetPath) {
		if err := syscall.Unmount(asked.TargetPath, 0); err != nil {
			return nil, told(err)
		}
	}
	if err := os.Remove(asked.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, told(err)
	}
	err := detach(filepath.Join(d.folder, filepath.Base(asked.VolumeId)))
	return &csi.NodeUnpublishVolumeResponse{}, told(err)
}

// The loop device over a file: the one that it has, or a new one.
func attach(file string) (string, error) {
	there, err := devices(file)
	if err != nil || len(there) > 0 {
		return strings.Join(there, ""), err
	}
	said, err := exec.Command("losetup", "--find", "--show", file).Output()
	return strings.TrimSpace(string(said)), err
}

func detach(file string) error {
	there, err := devices(file)
	for _, device := range there {
		err = errors.Join(err, exec.Command("losetup", "--detach", device).Run())
	}
	return err
}

func devices(file string) ([]string, error) {
	said, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", file).Output()
	return strings.Fields(string(said)), err
}

func mounted(target string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && strings.Contains(string(mounts), " "+target+" ")
}

func told(err error) error {
	if err == nil {
		return nil
	}
	fmt.Println("failed:", err)
	return status.Error(codes.Internal, err.Error())
}
