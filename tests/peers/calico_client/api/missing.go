// What Calico's programs want, and the published module of its API does not have yet: BGP filters,
// and fields of other kinds. A struct named Later… goes into the spec whose name it has.
package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

type PolicyPerformanceHint string

type LaterGlobalNetworkPolicySpec struct {
	PerformanceHints []PolicyPerformanceHint `json:"performanceHints,omitempty"`
}

type LaterNetworkPolicySpec struct {
	PerformanceHints []PolicyPerformanceHint `json:"performanceHints,omitempty"`
}

type LaterBGPConfigurationSpec struct {
	IgnoredInterfaces []string `json:"ignoredInterfaces,omitempty"`
}

type LaterBGPPeerSpec struct {
	Filters     []string `json:"filters,omitempty"`
	ReachableBy string   `json:"reachableBy,omitempty" validate:"omitempty,reachableBy"`
	TTLSecurity *uint8   `json:"ttlSecurity,omitempty"`
}

const IptablesBackendAuto = "Auto"

type BPFConnectTimeLBType string

const (
	BPFConnectTimeLBTCP      BPFConnectTimeLBType = "TCP"
	BPFConnectTimeLBEnabled  BPFConnectTimeLBType = "Enabled"
	BPFConnectTimeLBDisabled BPFConnectTimeLBType = "Disabled"
)

type BPFHostNetworkedNATType string

const (
	BPFHostNetworkedNATEnabled  BPFHostNetworkedNATType = "Enabled"
	BPFHostNetworkedNATDisabled BPFHostNetworkedNATType = "Disabled"
)

type HealthTimeoutOverride struct {
	Name    string          `json:"name"`
	Timeout metav1.Duration `json:"timeout"`
}

type LaterFelixConfigurationSpec struct {
	BPFCTLBLogFilter                 string                   `json:"bpfCTLBLogFilter,omitempty"`
	BPFConnectTimeLoadBalancing      *BPFConnectTimeLBType    `json:"bpfConnectTimeLoadBalancing,omitempty"`
	BPFDSROptoutCIDRs                *[]string                `json:"bpfDSROptoutCIDRs,omitempty"`
	BPFDisableGROForIfaces           string                   `json:"bpfDisableGROForIfaces,omitempty"`
	BPFExcludeCIDRsFromNAT           *[]string                `json:"bpfExcludeCIDRsFromNAT,omitempty"`
	BPFForceTrackPacketsFromIfaces   *[]string                `json:"bpfForceTrackPacketsFromIfaces,omitempty"`
	BPFHostConntrackBypass           *bool                    `json:"bpfHostConntrackBypass,omitempty"`
	BPFHostNetworkedNATWithoutCTLB   *BPFHostNetworkedNATType `json:"bpfHostNetworkedNATWithoutCTLB,omitempty"`
	BPFL3IfacePattern                string                   `json:"bpfL3IfacePattern,omitempty"`
	BPFLogFilters                    *map[string]string       `json:"bpfLogFilters,omitempty"`
	DebugHost                        *string                  `json:"debugHost,omitempty"`
	DebugPort                        *int                     `json:"debugPort,omitempty"`
	DebugSimulateDataplaneApplyDelay *metav1.Duration         `json:"debugSimulateDataplaneApplyDelay,omitempty"`
	EndpointStatusPathPrefix         string                   `json:"endpointStatusPathPrefix,omitempty"`
	FeatureGates                     string                   `json:"featureGates,omitempty"`
	HealthTimeoutOverrides           []HealthTimeoutOverride  `json:"healthTimeoutOverrides,omitempty" validate:"omitempty,dive"`
	IptablesFilterDenyAction         string                   `json:"iptablesFilterDenyAction,omitempty"`
	WindowsManageFirewallRules       *string                  `json:"windowsManageFirewallRules,omitempty"`
	WireguardThreadingEnabled        *bool                    `json:"wireguardThreadingEnabled,omitempty"`
}

const (
	KindBGPFilter     = "BGPFilter"
	KindBGPFilterList = "BGPFilterList"
)

type BGPFilterMatchOperator string

type BGPFilterRuleV4 struct {
	CIDR          string                 `json:"cidr,omitempty" validate:"omitempty,netv4"`
	Source        string                 `json:"source,omitempty" validate:"omitempty,oneof=RemotePeers"`
	Interface     string                 `json:"interface,omitempty" validate:"omitempty,bgpFilterInterface"`
	MatchOperator BGPFilterMatchOperator `json:"matchOperator,omitempty" validate:"omitempty,matchOperator"`
	Action        string                 `json:"action" validate:"filterAction"`
}

type BGPFilterRuleV6 struct {
	CIDR          string                 `json:"cidr,omitempty" validate:"omitempty,netv6"`
	Source        string                 `json:"source,omitempty" validate:"omitempty,oneof=RemotePeers"`
	Interface     string                 `json:"interface,omitempty" validate:"omitempty,bgpFilterInterface"`
	MatchOperator BGPFilterMatchOperator `json:"matchOperator,omitempty" validate:"omitempty,matchOperator"`
	Action        string                 `json:"action" validate:"filterAction"`
}

type BGPFilterSpec struct {
	ExportV4 []BGPFilterRuleV4 `json:"exportV4,omitempty" validate:"omitempty,dive"`
	ImportV4 []BGPFilterRuleV4 `json:"importV4,omitempty" validate:"omitempty,dive"`
	ExportV6 []BGPFilterRuleV6 `json:"exportV6,omitempty" validate:"omitempty,dive"`
	ImportV6 []BGPFilterRuleV6 `json:"importV6,omitempty" validate:"omitempty,dive"`
}

type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPFilterSpec `json:"spec"`
}

type BGPFilterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []BGPFilter `json:"items"`
}

func NewBGPFilter() *BGPFilter {
	kind := metav1.TypeMeta{Kind: KindBGPFilter, APIVersion: GroupVersionCurrent}
	return &BGPFilter{TypeMeta: kind}
}

func (filter *BGPFilter) DeepCopyObject() runtime.Object {
	copied := *filter
	return &copied
}

func (list *BGPFilterList) DeepCopyObject() runtime.Object {
	copied := *list
	return &copied
}
