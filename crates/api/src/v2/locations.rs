//! `google.cloud.location.Locations`: the regions that this Lauf serves.

use lauf_model::Status;
use lauf_wire::google::cloud::location::locations_server::Locations;
use lauf_wire::google::cloud::location::{
    GetLocationRequest, ListLocationsRequest, ListLocationsResponse, Location,
};
use tonic::{Request, async_trait};

use super::name::At;
use super::{Answer, Face, answer, asked};

#[async_trait]
impl Locations for Face {
    async fn list_locations(
        &self,
        request: Request<ListLocationsRequest>,
    ) -> Answer<ListLocationsResponse> {
        let (_, sent) = asked(request)?;
        answer(self.list(&sent.name).await)
    }

    async fn get_location(&self, request: Request<GetLocationRequest>) -> Answer<Location> {
        let (_, sent) = asked(request)?;
        let place = At("name").place(&self.api, &sent.name).await;
        answer(place.map(|place| location(&place.project, &place.region)))
    }
}

impl Face {
    /// All of them, whatever the size of a page: they are few.
    async fn list(&self, project: &str) -> Result<ListLocationsResponse, Status> {
        let project = At("name").project(&self.api, project).await?;
        let regions = self.api.config.regions.iter();
        Ok(ListLocationsResponse {
            locations: regions.map(|region| location(&project, region)).collect(),
            ..ListLocationsResponse::default()
        })
    }
}

fn location(project: &str, region: &str) -> Location {
    let label = ("cloud.googleapis.com/region".to_owned(), region.to_owned());
    Location {
        name: format!("projects/{project}/locations/{region}"),
        location_id: region.to_owned(),
        display_name: region.to_owned(),
        labels: [label].into(),
        ..Location::default()
    }
}
