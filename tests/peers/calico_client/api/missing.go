// Three names that Calico's client wants, and the published module of its API does not have yet.
package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

type PolicyPerformanceHint string

const KindBGPFilter = "BGPFilter"

type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              map[string]interface{} `json:"spec"`
}

func (filter *BGPFilter) DeepCopyObject() runtime.Object {
	copied := *filter
	return &copied
}
