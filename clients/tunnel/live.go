package tunnel

import (
	"context"
	"iter"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Usage returns what allocations that the caller may see have carried over time; params
// says of what, from when, and by minute, hour or day. Its zero value is everything of the
// last day by hour. Bytes are those of payloads; download is from the game to players.
func (c *Client) Usage(ctx context.Context, params types.GetUsageParams, opts ...Option) (types.Usage, error) {
	return fetch[types.Usage](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetUsage(ctx, &params, e...)
	})
}

// EachConnection returns the players who are connected, newest first, page by page. params
// filters them. Their bytes and round trips are those of AsOf.
func (c *Client) EachConnection(ctx context.Context, params types.ListConnectionsParams) iter.Seq2[types.Connection, error] {
	return each[types.Connection](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListConnections(ctx, &params, e...)
	})
}

// Connection returns a player's connection. Once it has ended the code of the error is
// not_found.
func (c *Client) Connection(ctx context.Context, id types.ConnectionID, opts ...Option) (types.Connection, error) {
	return fetch[types.Connection](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetConnection(ctx, id, e...)
	})
}

// CloseConnection cuts a player off. With params.KeepOutSeconds the player's source may not
// join the allocation for that time; nil is 0, which keeps nobody out. As with
// [Client.DeleteDevice], not_found can mean that an earlier attempt closed it.
func (c *Client) CloseConnection(ctx context.Context, id types.ConnectionID, params types.CloseConnectionParams, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CloseConnection(ctx, id, &params, e...)
	})
}

// EachKeptOut returns the sources that an allocation keeps out for a time, in the order in
// which they may join again.
func (c *Client) EachKeptOut(ctx context.Context, id types.AllocationID) iter.Seq2[types.KeptOut, error] {
	return each[types.KeptOut](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListKeptOut(ctx, id, e...)
	})
}

// ReadmitSource lets a source join an allocation again that keeps it out. An address stands
// for the source that it belongs to.
func (c *Client) ReadmitSource(ctx context.Context, id types.AllocationID, source types.AddressPrefix, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ReadmitSource(ctx, id, &types.ReadmitSourceParams{Source: source}, e...)
	})
}
