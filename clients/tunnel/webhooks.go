package tunnel

import (
	"context"
	"iter"
	"net/http"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// EachWebhook returns the webhooks of the caller, or of whom params names, newest first.
func (c *Client) EachWebhook(ctx context.Context, params types.ListWebhooksParams) iter.Seq2[types.Webhook, error] {
	return each[types.Webhook](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListWebhooks(ctx, &params, e...)
	})
}

// Webhook returns a webhook without its secret.
func (c *Client) Webhook(ctx context.Context, id types.WebhookID, opts ...Option) (types.Webhook, error) {
	return fetch[types.Webhook](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.GetWebhook(ctx, id, e...)
	})
}

// CreateWebhook makes a webhook and returns it with its secret, which cannot be retrieved
// later and verifies messages (Standard Webhooks). The code of the error is conflict if
// there are 20 already.
func (c *Client) CreateWebhook(ctx context.Context, webhook types.WebhookCreate, opts ...Option) (types.WebhookCreated, error) {
	return createOnce[types.WebhookCreated](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.CreateWebhook(ctx, webhook, e...)
	})
}

// UpdateWebhook changes the fields of patch that are not nil and returns the webhook as it
// is afterwards.
func (c *Client) UpdateWebhook(ctx context.Context, id types.WebhookID, patch types.WebhookPatch, opts ...Option) (types.Webhook, error) {
	return fetch[types.Webhook](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.UpdateWebhook(ctx, id, patch, e...)
	})
}

// DeleteWebhook deletes a webhook. Messages that wait are not sent.
func (c *Client) DeleteWebhook(ctx context.Context, id types.WebhookID, opts ...Option) error {
	return perform(opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.DeleteWebhook(ctx, id, e...)
	})
}

// TestWebhook sends a message of the type webhook.test at once and returns what came of it,
// after at most ten seconds. The error is nil also if the receiver refused it. It is sent
// once: each request is a message.
func (c *Client) TestWebhook(ctx context.Context, id types.WebhookID, opts ...Option) (types.WebhookDelivery, error) {
	return fetch[types.WebhookDelivery](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.TestWebhook(ctx, id, e...)
	})
}

// RotateWebhookSecret gives a webhook a new secret and returns it. For 24 hours messages are
// signed with the old one, too.
func (c *Client) RotateWebhookSecret(ctx context.Context, id types.WebhookID, opts ...Option) (types.WebhookSecret, error) {
	return createOnce[types.WebhookSecret](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.RotateWebhookSecret(ctx, id, e...)
	})
}

// EachWebhookDelivery returns the messages of a webhook and what came of them, newest
// first, page by page.
func (c *Client) EachWebhookDelivery(ctx context.Context, id types.WebhookID, params types.ListWebhookDeliveriesParams) iter.Seq2[types.WebhookDelivery, error] {
	return each[types.WebhookDelivery](func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.ListWebhookDeliveries(ctx, id, &params, e...)
	})
}

// RedeliverWebhook has a message sent again, and returns its new delivery. One that waits
// for its next attempt is sent now instead. The code of the error is conflict if the webhook
// is disabled.
func (c *Client) RedeliverWebhook(ctx context.Context, id types.WebhookID, delivery types.DeliveryID, opts ...Option) (types.WebhookDelivery, error) {
	return fetch[types.WebhookDelivery](opts, func(e ...client.RequestEditorFn) (*http.Response, error) {
		return c.api.RedeliverWebhook(ctx, id, delivery, e...)
	})
}
