package agent

import (
	"context"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// LoginApproval is the login of a person to wait for.
type LoginApproval struct {
	Client *tunnel.Client    // Required.
	Login  types.DeviceLogin // As StartDeviceLogin returned it.
	// OnAway is called once each time the panel becomes unreachable. May be nil.
	OnAway func(error)
	// Wait pauses between polls, until ctx ends. Required.
	Wait func(ctx context.Context, d time.Duration) error
}

// AwaitLogin polls until a person has approved the login, and returns their API key (RFC 8628 section 3.5). The key is
// returned once: keep it. AwaitLogin fails with the panel's login_expired, with login_denied, and with the last error
// once the panel has been unreachable, or has not known the login, for ten minutes.
func AwaitLogin(ctx context.Context, a LoginApproval) (status types.DeviceLoginStatus, err error) {
	p := poller{interval: time.Duration(a.Login.Interval) * time.Second, onAway: a.OnAway, wait: a.Wait}
	err = p.run(ctx, func() (bool, error) {
		status, err = a.Client.PollDeviceLogin(ctx, a.Login.DeviceCode)
		return err == nil && status.Key != nil && status.User != nil, err
	})
	return status, err
}
