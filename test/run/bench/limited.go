//go:build linux

package main

import (
	"fmt"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// allowedPrefixes is the number of entries of the allow list of oursLimited: as many as
// a list may have.
const allowedPrefixes = 1000

// limitedOptions are every rule that an allocation can have but deny, at values that
// bound nothing that the bench does. They are half of the largest ones, because the
// largest lifts a rule.
func limitedOptions() *types.AllocationOptions {
	bits := nullable.NewNullableWithValue(int64(types.MaxRuleLimitsDownloadBitsPerSecond) / 2)
	return &types.AllocationOptions{
		Allow:                         nullable.NewNullableWithValue(allowList()),
		MaxPlayers:                    nullable.NewNullableWithValue(types.MaxRuleLimitsMaxPlayers / 2),
		MaxPlayersPerSource:           nullable.NewNullableWithValue(types.MaxRuleLimitsMaxPlayersPerSource / 2),
		MaxFlowsPerSource:             nullable.NewNullableWithValue(types.MaxRuleLimitsMaxFlowsPerSource / 2),
		ConnectionsPerSecond:          nullable.NewNullableWithValue(types.MaxRuleLimitsConnectionsPerSecond / 2),
		ConnectionsPerSecondPerSource: nullable.NewNullableWithValue(types.MaxRuleLimitsConnectionsPerSecondPerSource / 2),
		DatagramsPerSecondPerSource:   nullable.NewNullableWithValue(int(types.MaxRuleLimitsDatagramsPerSecondPerSource) / 2),
		DownloadBitsPerSecond:         bits, UploadBitsPerSecond: bits,
		PlayerDownloadBitsPerSecond: bits, PlayerUploadBitsPerSecond: bits,
	}
}

// allowList has the addresses of the bench's players, in some hundred prefixes, and other
// networks of both families.
func allowList() []types.AddressPrefix {
	list := []types.AddressPrefix{"127.0.0.1", publicSide.String()}
	for i := range 256 {
		list = append(list, fmt.Sprintf("127.1.%d.0/24", i))
	}
	for i := 0; len(list) < allowedPrefixes; i++ {
		list = append(list, fmt.Sprintf("198.%d.%d.0/24", 18+i>>8, i&0xff), fmt.Sprintf("2001:db8:%x::/48", i))
	}
	return list
}
