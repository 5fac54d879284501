//go:build !newer

package main

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/libcni"
)

func newerVerb(
	_ context.Context, _ *libcni.CNIConfig, _ *libcni.NetworkConfigList, asked request,
) (interface{}, error) {
	return nil, fmt.Errorf("this libcni has no %s", asked.Verb)
}
