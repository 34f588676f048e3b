package auth

import (
	"slices"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel"
)

func TestPolicy_HasNoRowOfAnythingElse(t *testing.T) {
	for row, columns := range policy {
		operation, what, _ := strings.Cut(row, ", ")
		if !strings.Contains(string(eclitunnel.OpenAPI), "operationId: "+operation+"\n") {
			t.Errorf("%q: there is no such operation", row)
		}
		if what != "" && !slices.Contains(Cases, what) {
			t.Errorf("%q: there is no such case", row)
		}
		if rule, _ := RuleOf(row, ""); rule.Public() != (columns.scopes == anyone) {
			t.Errorf("%q: credentials are ignored, or they are not", row)
		}
	}
}
