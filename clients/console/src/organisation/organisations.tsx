import './organisation.css';
import type { ReactNode } from 'react';
import { Route, Switch } from 'wouter';
import { NotFound } from '../shell/not-found.js';
import { Detail } from './detail.js';
import { List } from './list.js';

/** The pages of organisations. */
export default function Organisations(): ReactNode {
  return (
    <Switch>
      <Route path="/organisations">
        <List />
      </Route>
      <Route path="/organisations/:id/*?">{({ id }) => (/^[1-9]\d{0,15}$/.test(id) ? <Detail key={id} id={Number(id)} /> : <NotFound />)}</Route>
      <Route>
        <NotFound />
      </Route>
    </Switch>
  );
}
