package handler

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/server"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

// ListAudit lists entries of the audit trail that the caller may see.
func (a *api) ListAudit(ctx context.Context, request server.ListAuditRequestObject) (server.ListAuditResponseObject, error) {
	params := request.Params
	after, err := auditPosition(params.After)
	if err != nil {
		return nil, err
	}
	filter, seen, err := a.auditFilter(ctx, params)
	if err != nil {
		return nil, err
	}
	var rows []db.AuditEntry
	wanted, page := page(params.Limit, after)
	if seen {
		if rows, err = a.db.Audit(ctx, filter, page); err != nil {
			return nil, err
		}
	}
	rows, link := cut(rows, wanted, "/api/audit", auditCursor,
		"organisationId", number(params.OrganisationID), "userId", number(params.UserID),
		"actor", valueOr(params.Actor, ""), "action", valueOr(params.Action, ""), "target", valueOr(params.Target, ""),
		"from", instant(params.From), "to", instant(params.To))
	entries := make([]types.AuditEntry, 0, len(rows))
	caller := auth.FromContext(ctx)
	for _, row := range rows {
		// Whoever guesses passwords must not learn of admins here, nor members of who manages their organisation.
		others := params.OrganisationID == nil && caller.User != nil &&
			(row.ActorKind != db.ActorUser || row.ActorID != strconv.FormatInt(caller.User.ID, 10)) && row.OrganisationID != nil
		if (row.ActorAdmin || others) && !caller.IsAdmin() {
			row.ActorName, row.Address = "", nil
			if row.ActorKind == db.ActorCommand {
				row.ActorID = ""
			}
		}
		entry, err := toAuditEntry(row)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return server.ListAudit200JSONResponse{Body: entries, Headers: server.ListAudit200ResponseHeaders{Link: link}}, nil
}

// auditFilter returns the filter of a request within what the caller may see. It reports false
// if that is nothing.
func (a *api) auditFilter(ctx context.Context, params types.ListAuditParams) (filter db.AuditFilter, seen bool, err error) {
	caller := auth.FromContext(ctx)
	filter = db.AuditFilter{
		UserID: params.UserID, OrganisationID: params.OrganisationID, Action: valueOr(params.Action, ""),
		From: valueOr(params.From, time.Time{}), To: valueOr(params.To, time.Time{}),
	}
	filter.ActorKind, filter.ActorID, _ = strings.Cut(valueOr(params.Actor, ""), ":")
	filter.TargetKind, filter.TargetID, _ = strings.Cut(valueOr(params.Target, ""), ":")
	switch {
	case caller.IsAdmin():
		return filter, true, nil
	case params.OrganisationID != nil:
		return filter, true, a.maySeeAuditOf(ctx, caller, *params.OrganisationID)
	case caller.User == nil: // The API key of an organisation.
		_, filter.OrganisationID = caller.Owner()
		return filter, true, nil
	case params.UserID != nil && !caller.IsUser(*params.UserID):
		return filter, false, nil
	}
	filter.UserID = &caller.User.ID
	return filter, true, nil
}

// maySeeAuditOf checks that the policy lets the caller, who is no admin of the panel, see what
// concerns an organisation.
func (a *api) maySeeAuditOf(ctx context.Context, caller auth.Principal, organisationID int64) error {
	column, err := caller.In(ctx, a.db, organisationID)
	if err != nil {
		return err
	}
	switch rule, _ := auth.RuleOf("listAudit", auth.Organisation); rule[column] {
	case auth.Allowed:
		return nil
	case http.StatusForbidden:
		return db.ErrForbidden
	default:
		return errNoOrganisation
	}
}

// refused records refusals by the policy that belong in the audit trail. The caller in ctx is
// no anonymous one.
func (a *api) refused(ctx context.Context, operation string) error {
	userID, organisationID := auth.FromContext(ctx).Owner()
	if operation != "approveDevice" && operation != "denyDevice" || userID == nil && organisationID == nil {
		return nil
	}
	return a.enroll.RecordRefusal(ctx)
}

func toAuditEntry(row db.AuditEntry) (types.AuditEntry, error) {
	entry := types.AuditEntry{
		ID: row.ID,
		At: row.At,
		Actor: types.AuditActor{
			Kind: row.ActorKind, ID: textOrNull(row.ActorID), Name: textOrNull(row.ActorName), Address: orNull(row.Address),
		},
		Action:         row.Action,
		Target:         types.AuditTarget{Kind: row.TargetKind, ID: textOrNull(row.TargetID), Name: textOrNull(row.TargetName)},
		UserID:         orNull(row.UserID),
		OrganisationID: orNull(row.OrganisationID),
		Count:          row.Count,
	}
	if err := json.Unmarshal(row.Changes, &entry.Changes); err != nil {
		return entry, fmt.Errorf("changes of audit entry %d: %w", row.ID, err)
	}
	return entry, nil
}

func textOrNull(text string) nullable.Nullable[string] {
	if text == "" {
		return nullable.NewNullNullable[string]()
	}
	return nullable.NewNullableWithValue(text)
}

// number and instant return a parameter as it stands in a URL, or "" without one.
func number(value *int64) string {
	if value == nil {
		return ""
	}
	return strconv.FormatInt(*value, 10)
}

func instant(value *time.Time) string {
	if value == nil {
		return ""
	}
	return value.Format(time.RFC3339Nano)
}
