package agent

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// FuzzDecode holds that no message of a panel makes the agent panic, and that
// what was understood can be listed.
func FuzzDecode(f *testing.F) {
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
		state := fromSnapshot(snapshot(1, 1, 2))
		message, err := decode(data)
		if err != nil {
			return
		}
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

// BenchmarkDecode takes in what an agent hears: a change, and the snapshots of a
// home and of a hosting company.
func BenchmarkDecode(b *testing.B) {
	allocations := func(n int) []types.ClientAllocation {
		all := make([]types.ClientAllocation, n)
		for i := range all {
			all[i] = types.ClientAllocation{
				ID: int64(i + 1), Name: "Survival", Protocol: types.ProtocolTCP, ServerID: uuid.New(),
				PublicAddress: "play.example.com:20001", LocalHost: "127.0.0.1", LocalPort: 25565,
			}
		}
		return all
	}
	for name, message := range map[string]any{
		"change":       types.ClientChange{Type: types.TypeClientChange, Revision: 2, Allocations: allocations(1)},
		"snapshot-2":   types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, Allocations: allocations(2)},
		"snapshot-200": types.ClientSnapshot{Type: types.TypeClientSnapshot, Revision: 1, Allocations: allocations(200)},
	} {
		data, err := json.Marshal(message)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
