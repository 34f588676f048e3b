package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/live/webhooks"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// defaultOfflineDelay is for how many seconds something does not work until webhooks are told.
const defaultOfflineDelay = types.DefaultWebhookCreateOfflineDelaySeconds

const (
	// testRetry is the Retry-After after too many tests of a webhook.
	testRetry = time.Minute
	// redeliveries is how many messages an account may have sent again in a redeliveryWindow.
	redeliveries     = 30
	redeliveryWindow = time.Minute
)

// Webhooks sends messages to people's URLs.
type Webhooks interface {
	// CheckURL returns the scheme and host of a URL. The error is a phrase for people.
	CheckURL(text string, format types.WebhookFormat) (target string, err error)
	// Test sends a message to a webhook in scope, and returns what came of it.
	Test(ctx context.Context, scope db.Scope, id int64) (db.WebhookDelivery, error)
	// QuotaReached tells webhooks that something was refused because of a quota.
	QuotaReached(ctx context.Context, reached db.QuotaError) error
	// Wake has messages sent that are due now.
	Wake()
}

var (
	errNoWebhook  = problem.NotFound("There is no such webhook.")
	errNoDelivery = problem.NotFound("The webhook has no such delivery.")
)

// webhookError translates the errors of operations on one webhook.
func webhookError(err error) error {
	switch {
	case errors.Is(err, db.ErrNoDelivery):
		return errNoDelivery
	case errors.Is(err, db.ErrWebhookDisabled):
		return problem.Conflict("The webhook is disabled; enable it first.")
	case errors.Is(err, db.ErrTooManyTests):
		return problem.RateLimited(testRetry)
	default:
		return ifNotFound(err, errNoWebhook)
	}
}

// ListWebhooks lists the webhooks of the caller, of whom the caller manages, or of the whole site.
func (a *api) ListWebhooks(ctx context.Context, request server.ListWebhooksRequestObject) (server.ListWebhooksResponseObject, error) {
	caller, params := auth.FromContext(ctx), request.Params
	owner := db.APIKeyOwner{UserID: params.UserID, OrganisationID: params.OrganisationID}
	absent, site := errNoUser, valueOr(params.Site, false)
	switch {
	case owner.UserID != nil && owner.OrganisationID != nil:
		return nil, problem.Invalid(problem.Field("organisationId", "cannot be combined with userId"))
	case site && owner != (db.APIKeyOwner{}):
		return nil, problem.Invalid(problem.Field("site", "cannot be combined with userId or organisationId"))
	case site && !caller.May("listWebhooks", auth.WholeSite):
		return nil, errSite
	case owner.OrganisationID != nil:
		absent = errNoOrganisation
	case owner.UserID == nil && !site:
		owner.UserID = &caller.User.ID
	}
	rows, err := a.db.Webhooks(ctx, caller.Scope(), owner)
	if err != nil {
		return nil, ifNotFound(err, absent)
	}
	webhooks := make(server.ListWebhooks200JSONResponse, 0, len(rows))
	for _, row := range rows {
		webhooks = append(webhooks, toWebhook(row))
	}
	return webhooks, nil
}

var errSite = problem.Forbidden("Only an admin can manage webhooks of the whole site.")

// CreateWebhook makes a webhook of the caller, of an organisation that the caller manages, or of the whole site.
func (a *api) CreateWebhook(ctx context.Context, request server.CreateWebhookRequestObject) (server.CreateWebhookResponseObject, error) {
	caller, create := auth.FromContext(ctx), request.Body
	webhook := db.Webhook{
		Name: strings.TrimSpace(create.Name), URL: create.URL, Format: string(valueOr(create.Format, types.WebhookStandard)),
		OfflineDelay: valueOr(create.OfflineDelaySeconds, defaultOfflineDelay), Enabled: valueOr(create.Enabled, true),
		Secret: webhooks.NewSecret(), CreatedAt: a.gate.now(),
	}
	for _, event := range create.Events {
		webhook.Events = append(webhook.Events, string(event))
	}
	site := valueOr(create.Site, false)
	switch {
	case webhook.Name == "":
		return nil, problem.Invalid(problem.Field("name", "is blank"))
	case site && create.OrganisationID != nil:
		return nil, problem.Invalid(problem.Field("site", "cannot be combined with organisationId"))
	case site && !caller.May("createWebhook", auth.WholeSite):
		return nil, errSite
	case create.OrganisationID != nil:
		webhook.OrganisationID = create.OrganisationID
	case !site:
		webhook.UserID = &caller.User.ID
	}
	var err error
	if webhook.Target, err = a.webhooks.CheckURL(webhook.URL, types.WebhookFormat(webhook.Format)); err != nil {
		return nil, problem.Invalid(problem.Field("url", err.Error()))
	}
	row, err := a.db.CreateWebhook(ctx, caller.Scope(), webhook)
	if err != nil {
		return nil, ifNotFound(err, errNoOrganisation)
	}
	created := toWebhook(row)
	return server.CreateWebhook201JSONResponse(types.WebhookCreated{
		ID: created.ID, Name: created.Name, URL: created.URL, Format: created.Format, Events: created.Events,
		OfflineDelaySeconds: created.OfflineDelaySeconds, UserID: created.UserID, OrganisationID: created.OrganisationID,
		Enabled: created.Enabled, DisabledReason: created.DisabledReason, CreatedAt: created.CreatedAt,
		FailingSince: created.FailingSince, LastDelivery: created.LastDelivery, Secret: row.Secret,
	}), nil
}

// GetWebhook returns a webhook.
func (a *api) GetWebhook(ctx context.Context, request server.GetWebhookRequestObject) (server.GetWebhookResponseObject, error) {
	row, err := a.db.Webhook(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, webhookError(err)
	}
	setTag(ctx, webhookTag(row))
	return server.GetWebhook200JSONResponse(toWebhook(row)), nil
}

// UpdateWebhook changes a webhook.
func (a *api) UpdateWebhook(ctx context.Context, request server.UpdateWebhookRequestObject) (server.UpdateWebhookResponseObject, error) {
	scope, change := auth.FromContext(ctx).Scope(), request.Body
	patch := db.WebhookPatch{URL: change.URL, OfflineDelay: change.OfflineDelaySeconds, Enabled: change.Enabled}
	if change.Name != nil {
		name := strings.TrimSpace(*change.Name)
		if name == "" {
			return nil, problem.Invalid(problem.Field("name", "is blank"))
		}
		patch.Name = &name
	}
	if change.Events != nil {
		for _, event := range *change.Events {
			patch.Events = append(patch.Events, string(event))
		}
	}
	if change.Format != nil {
		format := string(*change.Format)
		patch.Format = &format
	}
	if change.URL != nil || change.Format != nil {
		before, err := a.db.Webhook(ctx, scope, request.ID)
		if err != nil {
			return nil, webhookError(err)
		}
		target, err := a.webhooks.CheckURL(valueOr(change.URL, before.URL), types.WebhookFormat(valueOr(patch.Format, before.Format)))
		if err != nil {
			return nil, problem.Invalid(problem.Field("url", err.Error()))
		}
		patch.Target = &target
	}
	row, err := a.db.UpdateWebhook(ifMatch(ctx, webhookTag), scope, request.ID, patch, a.gate.now())
	if err != nil {
		return nil, webhookError(err)
	}
	setTag(ctx, webhookTag(row))
	return server.UpdateWebhook200JSONResponse(toWebhook(row)), nil
}

// DeleteWebhook deletes a webhook.
func (a *api) DeleteWebhook(ctx context.Context, request server.DeleteWebhookRequestObject) (server.DeleteWebhookResponseObject, error) {
	if err := a.db.DeleteWebhook(ifMatch(ctx, webhookTag), auth.FromContext(ctx).Scope(), request.ID); err != nil {
		return nil, webhookError(err)
	}
	return server.DeleteWebhook200JSONResponse(types.Success{Success: true}), nil
}

// TestWebhook sends a message to a webhook, and returns what came of it.
func (a *api) TestWebhook(ctx context.Context, request server.TestWebhookRequestObject) (server.TestWebhookResponseObject, error) {
	delivery, err := a.webhooks.Test(ctx, auth.FromContext(ctx).Scope(), request.ID)
	if err != nil {
		return nil, webhookError(err)
	}
	tested, err := toDelivery(delivery)
	return server.TestWebhook200JSONResponse(tested), err
}

// RotateWebhookSecret gives a webhook another secret.
func (a *api) RotateWebhookSecret(ctx context.Context, request server.RotateWebhookSecretRequestObject) (server.RotateWebhookSecretResponseObject, error) {
	now := a.gate.now()
	row, err := a.db.RotateWebhookSecret(ctx, auth.FromContext(ctx).Scope(), request.ID, webhooks.NewSecret(), now)
	if err != nil {
		return nil, webhookError(err)
	}
	return server.RotateWebhookSecret200JSONResponse(types.WebhookSecret{
		Secret: row.Secret, OldSecretExpiresAt: valueOr(row.OldSecretUntil, now),
	}), nil
}

// ListWebhookDeliveries lists the messages of a webhook.
func (a *api) ListWebhookDeliveries(ctx context.Context, request server.ListWebhookDeliveriesRequestObject) (server.ListWebhookDeliveriesResponseObject, error) {
	wanted, page := page(request.Params.Limit, request.Params.After)
	rows, err := a.db.WebhookDeliveries(ctx, auth.FromContext(ctx).Scope(), request.ID, page)
	if err != nil {
		return nil, webhookError(err)
	}
	rows, link := cut(rows, wanted, fmt.Sprintf("/api/webhooks/%d/deliveries", request.ID),
		func(row db.WebhookDelivery) string { return strconv.FormatInt(row.ID, 10) })
	deliveries := make([]types.WebhookDelivery, 0, len(rows))
	for _, row := range rows {
		delivery, err := toDelivery(row)
		if err != nil {
			return nil, err
		}
		deliveries = append(deliveries, delivery)
	}
	return server.ListWebhookDeliveries200JSONResponse{
		Body: deliveries, Headers: server.ListWebhookDeliveries200ResponseHeaders{Link: link},
	}, nil
}

// RedeliverWebhook has a message sent again.
func (a *api) RedeliverWebhook(ctx context.Context, request server.RedeliverWebhookRequestObject) (server.RedeliverWebhookResponseObject, error) {
	caller, now := auth.FromContext(ctx), a.gate.now()
	attempt, err := a.db.Take(ctx, "redeliver:"+caller.Account(), redeliveries, redeliveryWindow, now)
	if err != nil {
		return nil, err
	}
	if attempt.RetryAfter > 0 {
		return nil, problem.RateLimited(attempt.RetryAfter)
	}
	row, err := a.db.Redeliver(ctx, caller.Scope(), request.ID, request.DeliveryID, now)
	if err != nil {
		return nil, webhookError(err)
	}
	a.webhooks.Wake()
	delivery, err := toDelivery(row)
	return server.RedeliverWebhook200JSONResponse(delivery), err
}

// noteQuota tells webhooks of an error because of a quota. What fails here must not change the answer.
func (a *api) noteQuota(ctx context.Context, err error) {
	var reached *db.QuotaError
	if !errors.As(err, &reached) {
		return
	}
	// The request has done nothing: this must not make its claim on an idempotency key.
	if err := a.webhooks.QuotaReached(db.WithClaim(ctx, nil), *reached); err != nil {
		a.logger.WarnContext(ctx, "webhooks not told of a quota", slog.Any("error", err))
	}
}

func toWebhook(row db.Webhook) types.Webhook {
	webhook := types.Webhook{
		ID: row.ID, Name: row.Name, URL: row.URL, Format: types.WebhookFormat(row.Format),
		Events: make([]types.WebhookEventType, 0, len(row.Events)), OfflineDelaySeconds: row.OfflineDelay,
		UserID: orNull(row.UserID), OrganisationID: orNull(row.OrganisationID),
		Enabled: row.Enabled, DisabledReason: textOrNull(row.DisabledReason), CreatedAt: row.CreatedAt, FailingSince: orNull(row.FailingSince),
	}
	for _, event := range row.Events {
		webhook.Events = append(webhook.Events, types.WebhookEventType(event))
	}
	webhook.LastDelivery.SetNull()
	if row.AttemptedAt != nil {
		webhook.LastDelivery.Set(types.WebhookResult{At: *row.AttemptedAt, Status: orNull(row.LastStatus), Error: textOrNull(row.LastError)})
	}
	return webhook
}

func toDelivery(row db.WebhookDelivery) (types.WebhookDelivery, error) {
	delivery := types.WebhookDelivery{
		ID: row.ID, MessageID: row.MessageID, Type: row.Type, State: types.WebhookDeliveryState(row.State), Attempts: row.Attempts,
		CreatedAt: row.CreatedAt, NextAttemptAt: orNull(row.NextAt), LastAttemptAt: orNull(row.AttemptedAt),
		Status: orNull(row.Status), Error: textOrNull(row.Error), DurationMs: orNull(row.DurationMS),
	}
	if err := json.Unmarshal([]byte(row.Payload), &delivery.Payload); err != nil {
		return delivery, fmt.Errorf("payload of delivery %d: %w", row.ID, err)
	}
	return delivery, nil
}
