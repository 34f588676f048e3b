package publicport

import (
	"context"
	"fmt"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/shaping"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// bandwidth divides the bandwidth of an allocation among the players of its port.
type bandwidth struct{ upload, download *shaping.Shaper }

func newBandwidth(r *rules) bandwidth {
	b := bandwidth{upload: shaping.New(), download: shaping.New()}
	b.configure(r)
	return b
}

// configure sets the rules, for players who are in too.
func (b bandwidth) configure(r *rules) {
	b.upload.SetRates(shaping.Rates{All: bitsOf(r.UploadBitsPerSecond), Player: bitsOf(r.PlayerUploadBitsPerSecond)})
	b.download.SetRates(shaping.Rates{All: bitsOf(r.DownloadBitsPerSecond), Player: bitsOf(r.PlayerDownloadBitsPerSecond)})
}

// checkBandwidths returns an error for a bandwidth that is none.
func checkBandwidths(r *types.AllocationRules) error {
	for name, rule := range map[types.RuleName]*types.BitsPerSecond{
		types.RuleUploadBitsPerSecond: r.UploadBitsPerSecond, types.RulePlayerUploadBitsPerSecond: r.PlayerUploadBitsPerSecond,
		types.RuleDownloadBitsPerSecond: r.DownloadBitsPerSecond, types.RulePlayerDownloadBitsPerSecond: r.PlayerDownloadBitsPerSecond,
	} {
		if rule != nil && *rule <= 0 {
			return fmt.Errorf("%s: %d is not a bandwidth", name, *rule)
		}
	}
	return nil
}

func bitsOf(r *types.BitsPerSecond) int64 {
	if r == nil {
		return 0
	}
	return *r
}

// bound bounds the bandwidth of a TCP player, who may have to wait for it until the
// context ends. The caller calls left when the player has left.
func (b bandwidth) bound(ctx context.Context, player *tcpstream.Player) (left func()) {
	upload, download := b.upload.Join(), b.download.Join()
	player.Upload, player.Download = upload, download
	closeBoth := func() {
		upload.Close()
		download.Close()
	}
	stop := context.AfterFunc(ctx, closeBoth)
	return func() {
		if stop() {
			closeBoth()
		}
	}
}

// datagrams bounds one direction of a UDP flow. It implements [udptunnel.Limit].
type datagrams struct {
	*shaping.Share
	refusals portRefusals
}

// Admit implements [udptunnel.Limit].
func (d datagrams) Admit(bytes int) bool {
	if d.Share.Admit(bytes) {
		return true
	}
	d.refusals.datagrams(RefusedBandwidth, 1)
	return false
}
