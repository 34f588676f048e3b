import './devices.css';
import type { ReactNode } from 'react';
import { Route, Switch } from 'wouter';
import { NotFound } from '../shell/not-found.js';
import { Detail } from './detail.js';
import { List } from './list.js';

/** The pages of devices. */
export default function Devices(): ReactNode {
  return (
    <Switch>
      <Route path="/devices">
        <List />
      </Route>
      <Route path="/devices/:id/*?">{({ id }) => (/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(id) ? <Detail key={id} id={id} /> : <NotFound />)}</Route>
      <Route>
        <NotFound />
      </Route>
    </Switch>
  );
}
