package agent

import (
	"encoding/json"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// FuzzDesired checks that no message of a panel makes the agent panic, and that
// what it describes can be listed.
func FuzzDesired(f *testing.F) {
	for _, message := range []any{snapshot(1, 1, 2), change(2, []int64{3}, []int64{1}), types.Hello{Type: types.TypeHello}} {
		seed, err := json.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	for _, seed := range []string{``, `null`, `7`, `{}`, `{"type":7}`, `{"type":"client.snapshot","allocations":null}`, `{"type":"client.change","revision":-1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var union types.ControlMessage
		if union.UnmarshalJSON(data) != nil {
			return
		}
		message, err := union.ValueByDiscriminator()
		if err != nil {
			return
		}
		state := fromSnapshot(snapshot(1, 1, 2))
		switch m := message.(type) {
		case types.ClientSnapshot:
			state = fromSnapshot(m)
		case types.ClientChange:
			state = state.with(m)
		}
		if len(state.allocationList()) != len(state.allocations) || len(state.serverList()) != len(state.servers) {
			t.Errorf("lists of %+v", state)
		}
	})
}
