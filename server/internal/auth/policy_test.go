package auth

import (
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
)

func TestPolicy_HasNoRowOfAnythingElse(t *testing.T) {
	cases := []string{"", PortBelow1024, CordonedServer, ServerSettings, TunnelServer, Organisation}
	for row := range policy {
		operation, what, _ := strings.Cut(row, ", ")
		if !strings.Contains(string(eclitunnel.OpenAPI), "operationId: "+operation+"\n") {
			t.Errorf("%q: there is no such operation", row)
		}
		if !slices.Contains(cases, what) {
			t.Errorf("%q: there is no such case", row)
		}
	}
}
