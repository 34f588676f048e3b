package auth

import (
	"regexp"
	"testing"

	"github.com/eclitunnel/eclitunnel"
)

// A scanner that knows the checksum finds the keys of the contract's examples.
func TestAPIKey_ExamplesOfTheContractAreKeys(t *testing.T) {
	keys := regexp.MustCompile(`etk_\w{12,}`).FindAllString(string(eclitunnel.OpenAPI), -1)
	if len(keys) == 0 {
		t.Error("the contract shows no key")
	}
	for _, key := range keys {
		if !isAPIKey(key) {
			t.Errorf("%s is no key", key)
		}
	}
}
