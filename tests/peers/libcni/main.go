// Command libcni drives a CNI plugin through libcni, the code by which containerd, CRI-O and Podman
// do: one request in JSON on standard input, one answer in JSON on standard output.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

type request struct {
	Verb         string
	List         json.RawMessage // a network list, or
	Conf         json.RawMessage // the older form with one plugin
	Path         []string
	Cache        string
	ContainerID  string
	NetNS        string
	IfName       string
	Args         [][2]string
	Capabilities map[string]interface{}
	Valid        []attachment
}

type answer struct {
	Result interface{} `json:"result,omitempty"`
	Error  string      `json:"error,omitempty"` // as a user of the runtime reads it
	Code   uint        `json:"code,omitempty"`  // of the plugin's own error
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var told answer
	result, err := carryOut(asked)
	if err != nil {
		told.Error = err.Error()
		var own *types.Error
		if errors.As(err, &own) {
			told.Code = own.Code
		}
	} else {
		told.Result = result
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		os.Exit(2)
	}
}

func network(asked request) (*libcni.NetworkConfigList, error) {
	if asked.Conf == nil {
		return libcni.ConfListFromBytes(asked.List)
	}
	conf, err := libcni.ConfFromBytes(asked.Conf)
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf)
}

func carryOut(asked request) (interface{}, error) {
	list, err := network(asked)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	library := libcni.NewCNIConfigWithCacheDir(asked.Path, asked.Cache, nil)
	runtime := &libcni.RuntimeConf{
		ContainerID:    asked.ContainerID,
		NetNS:          asked.NetNS,
		IfName:         asked.IfName,
		Args:           asked.Args,
		CapabilityArgs: asked.Capabilities,
	}
	switch asked.Verb {
	case "ADD":
		return library.AddNetworkList(ctx, list, runtime)
	case "CHECK":
		return nil, library.CheckNetworkList(ctx, list, runtime)
	case "DEL":
		return nil, library.DelNetworkList(ctx, list, runtime)
	case "VERSION":
		info, err := library.GetVersionInfo(ctx, list.Plugins[0].Network.Type)
		if err != nil {
			return nil, err
		}
		return info.SupportedVersions(), nil
	case "validate":
		return library.ValidateNetworkList(ctx, list)
	case "cached":
		return library.GetNetworkListCachedResult(list, runtime)
	default:
		return newerVerb(ctx, library, list, asked)
	}
}
