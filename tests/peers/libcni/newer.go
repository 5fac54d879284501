//go:build newer

package main

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// newerVerb does what libcni knows since 1.2.
func newerVerb(
	ctx context.Context, library *libcni.CNIConfig, list *libcni.NetworkConfigList, asked request,
) (interface{}, error) {
	switch asked.Verb {
	case "STATUS":
		return nil, library.GetStatusNetworkList(ctx, list)
	case "GC":
		valid := []types.GCAttachment{}
		for _, each := range asked.Valid {
			valid = append(valid, types.GCAttachment{
				ContainerID: each.ContainerID, IfName: each.IfName,
			})
		}
		return nil, library.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
	default:
		return nil, fmt.Errorf("unknown verb %q", asked.Verb)
	}
}
