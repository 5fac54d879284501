// Calico's own client library at work on an etcd: what it reads there, and its IPAM.
//
//	calico-client ENDPOINT list | assign HOST HANDLE COUNT | take ADDRESS HOST HANDLE |
//	                       owner ADDRESS | release HANDLE | usage
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"

	apiv3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/apiconfig"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	bapi "github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/etcdv3"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var ctx = context.Background()

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tell(value any) {
	check(json.NewEncoder(os.Stdout).Encode(value))
}

// pools gives IPAM what the full client would.
type pools struct{ client bapi.Client }

func (p pools) GetAllPools() ([]apiv3.IPPool, error) {
	found, err := p.client.List(ctx, model.ResourceListOptions{Kind: apiv3.KindIPPool}, "")
	if err != nil {
		return nil, err
	}
	var all []apiv3.IPPool
	for _, pair := range found.KVPairs {
		all = append(all, *pair.Value.(*apiv3.IPPool))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

func (p pools) GetEnabledPools(version int) ([]apiv3.IPPool, error) {
	all, err := p.GetAllPools()
	var enabled []apiv3.IPPool
	for _, pool := range all {
		_, cidr, bad := cnet.ParseCIDR(pool.Spec.CIDR)
		if bad == nil && cidr.Version() == version && !pool.Spec.Disabled {
			enabled = append(enabled, pool)
		}
	}
	return enabled, err
}

type reservations struct{ client bapi.Client }

func (r reservations) List(_ context.Context, _ options.ListOptions) (*apiv3.IPReservationList, error) {
	found, err := r.client.List(ctx, model.ResourceListOptions{Kind: apiv3.KindIPReservation}, "")
	list := &apiv3.IPReservationList{}
	if err == nil {
		for _, pair := range found.KVPairs {
			list.Items = append(list.Items, *pair.Value.(*apiv3.IPReservation))
		}
	}
	return list, err
}

// kinds to list, with the type to which each must decode without a field left over.
var kinds = map[string]struct {
	what  model.ListInterface
	value any
}{
	"IPPool":             {model.ResourceListOptions{Kind: apiv3.KindIPPool}, apiv3.IPPool{}},
	"IPReservation":      {model.ResourceListOptions{Kind: apiv3.KindIPReservation}, apiv3.IPReservation{}},
	"Node":               {model.ResourceListOptions{Kind: libapi.KindNode}, libapi.Node{}},
	"WorkloadEndpoint":   {model.ResourceListOptions{Kind: libapi.KindWorkloadEndpoint}, libapi.WorkloadEndpoint{}},
	"ClusterInformation": {model.ResourceListOptions{Kind: apiv3.KindClusterInformation}, apiv3.ClusterInformation{}},
	"BGPConfiguration":   {model.ResourceListOptions{Kind: apiv3.KindBGPConfiguration}, apiv3.BGPConfiguration{}},
	"Block4":             {model.BlockListOptions{IPVersion: 4}, model.AllocationBlock{}},
	"Block6":             {model.BlockListOptions{IPVersion: 6}, model.AllocationBlock{}},
	"BlockAffinity":      {model.BlockAffinityListOptions{}, model.BlockAffinity{}},
	"IPAMHandle":         {model.IPAMHandleListOptions{}, model.IPAMHandle{}},
}

// list tells, kind by kind, the keys that Calico finds, and those of whose values it would lose a field.
func list(client bapi.Client, raw *clientv3.Client) {
	type told struct {
		Keys    []string `json:"keys"`
		Unknown []string `json:"unknown"`
	}
	answer := map[string]told{}
	for kind, each := range kinds {
		found, err := client.List(ctx, each.what, "")
		check(err)
		one := told{Keys: []string{}, Unknown: []string{}}
		for _, pair := range found.KVPairs {
			path, err := model.KeyToDefaultPath(pair.Key)
			check(err)
			one.Keys = append(one.Keys, path)
			stored, err := raw.Get(ctx, path)
			check(err)
			strict := json.NewDecoder(bytes.NewReader(stored.Kvs[0].Value))
			strict.DisallowUnknownFields()
			if err := strict.Decode(reflect.New(reflect.TypeOf(each.value)).Interface()); err != nil {
				one.Unknown = append(one.Unknown, path+": "+err.Error())
			}
		}
		sort.Strings(one.Keys)
		answer[kind] = one
	}
	config, err := client.Get(ctx, model.IPAMConfigKey{}, "")
	if err == nil {
		one := config.Value.(*model.IPAMConfig)
		answer["IPAMConfig"] = told{Keys: []string{fmt.Sprintf("strict=%v auto=%v", one.StrictAffinity, one.AutoAllocateBlocks)}}
	}
	tell(answer)
}

func main() {
	endpoint, verb, words := os.Args[1], os.Args[2], os.Args[3:]
	client, err := etcdv3.NewEtcdV3Client(&apiconfig.EtcdConfig{EtcdEndpoints: endpoint})
	check(err)
	calico := ipam.NewIPAMClient(client, pools{client}, reservations{client})
	switch verb {
	case "list":
		raw, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
		check(err)
		list(client, raw)
	case "assign":
		host, handle := words[0], words[1]
		count, err := strconv.Atoi(words[2])
		check(err)
		given, _, err := calico.AutoAssign(ctx, ipam.AutoAssignArgs{
			Num4: count, HandleID: &handle, Hostname: host, IntendedUse: apiv3.IPPoolAllowedUseWorkload,
			Attrs: map[string]string{"node": host, "namespace": "default", "pod": handle},
		})
		check(err)
		addresses := []string{}
		for _, each := range given.IPs {
			addresses = append(addresses, each.IP.String())
		}
		tell(addresses)
	case "take":
		handle := words[2]
		check(calico.AssignIP(ctx, ipam.AssignIPArgs{
			IP: cnet.MustParseIP(words[0]), HandleID: &handle, Hostname: words[1],
			Attrs: map[string]string{"node": words[1]},
		}))
		tell(true)
	case "owner":
		attributes, handle, err := calico.GetAssignmentAttributes(ctx, cnet.MustParseIP(words[0]))
		check(err)
		tell(map[string]any{"attributes": attributes, "handle": handle})
	case "release":
		check(calico.ReleaseByHandle(ctx, words[0]))
		tell(true)
	case "usage":
		found, err := calico.GetUtilization(ctx, ipam.GetUtilizationArgs{})
		check(err)
		answer := map[string]int{}
		for _, pool := range found {
			for _, block := range pool.Blocks {
				answer[pool.Name] += block.Capacity - block.Available
			}
		}
		tell(answer)
	}
}
